"""Tables of Berth's own that are damaged: one line that names file, line and column, and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from infra.doctor.quotas import TABLE, quota_of, quotas
from sizing.errors import UserError
from sizing.training_plan.tables import FOLDER, constants, mfu, rows_of


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("L-DB2E81BA", "DB2E81BA", "no code of Service Quotas"),
        (",on-demand,", ",on demand,", "neither on-demand nor spot"),
        (",undated,", ",,", "column as_of: is empty"),
        ("family,", "kind,", "the header lacks family"),
    ],
)
def test_a_damaged_table_of_quotas_says_where(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "quotas.csv"
    path.write_text(TABLE.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=said) as error:
        quotas(path)
    assert "reinstalling Berth restores it" in str(error.value)


def test_every_quota_has_a_code_of_its_own_and_a_source() -> None:
    codes = [q.code for q in quotas()]
    assert len(codes) == len(set(codes)) == 11
    found = quota_of("p4d.24xlarge", "spot")
    assert found is not None and found.code == "L-7212CCBC"


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("mfu.csv", "0.4,0.5,0.65", "0.4,0.5,1.65", "shares of at most 1"),
        ("mfu.csv", "0.4,0.5,0.65", "0.4,half,0.65", "'half' is not a number"),
        ("mfu.csv", ",fit,", ",guessed,", "'guessed' is none of fit, published, assumed"),
        ("constants.csv", "0.0036", "", "column likely: is empty"),
        ("constants.csv", "2024-01", "yesterday", "neither a date"),
        ("constants.csv", "zero_layer_seconds", "zero_layer_minutes", "too many or too few"),
    ],
)
def test_a_damaged_constant_of_training_says_where(tmp_path: Path, name: str, old: str, new: str, said: str) -> None:
    for table in ("mfu.csv", "constants.csv"):
        shutil.copy(FOLDER / table, tmp_path / table)
    text = (tmp_path / name).read_text(encoding="utf-8")
    (tmp_path / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=said):
        constants("likely", tmp_path)
        mfu("A100", "decoder-only", "full", "16bit", tmp_path)


def test_a_table_that_is_cut_off_is_not_read_in_part(tmp_path: Path) -> None:
    text = (FOLDER / "mfu.csv").read_text(encoding="utf-8")
    (tmp_path / "mfu.csv").write_text(text[: len(text) // 2], encoding="utf-8")
    with pytest.raises(UserError, match=r"cut off|cells where the header"):
        rows_of("mfu.csv", tmp_path)
