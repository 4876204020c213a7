"""Damaged tables: wherever a file that Berth ships is cut, emptied or overwritten, one line says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizing import start_up
from sizing.errors import UserError
from sizing.need import questions
from sizing.tables import read_rows
from sizing.throughput import tables as speeds

TABLES = {
    Path(start_up.__file__).with_name("start_up.csv"): start_up.COLUMNS,
    Path(questions.__file__).with_name("services.csv"): questions.SERVICE_COLUMNS,
    **{speeds.FOLDER / name: columns for name, columns in speeds.COLUMNS.items()},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
def test_a_shipped_table_is_whole(path: Path) -> None:
    assert read_rows(path, TABLES[path])


@given(path=st.sampled_from(sorted(TABLES)), share=st.floats(0, 1))
def test_a_cut_file_is_told_in_one_line_unless_the_cut_is_between_lines(folder: Path, path: Path, share: float) -> None:
    content = path.read_bytes()
    kept = content[: int(len(content) * share)]
    cut = folder / path.name
    cut.write_bytes(kept)
    try:
        rows = read_rows(cut, TABLES[path])
    except UserError as error:
        assert str(error).startswith(f"{cut}")
        assert str(error).endswith("; reinstalling Berth restores it")
        assert "\n" not in str(error)
    else:
        assert kept.endswith(b"\n")
        whole = read_rows(path, TABLES[path])
        assert [row.cells for row in rows] == [row.cells for row in whole[: len(rows)]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, " is missing"),
        (b"", " is empty"),
        (b" \n", " is empty"),
        (b"name,usd\nx,\xff\n", " is damaged: byte 11 is not UTF-8 text"),
        (b"name,usd\n", " has a header but no rows"),
        (b"name\nx\n", ", line 1: the header lacks usd"),
        (b"name,usd,more\nx,1,2\n", ", line 1: the header has unknown more"),
        (b"usd,name\n1,x\n", ", line 1: the header has unknown order"),
        (b"name,usd\nx\n", ", line 2: 1 cells where the header has 2"),
        (b"name,usd\nx,1,2\n", ", line 2: 3 cells where the header has 2"),
        (b'name,usd\nx,"1\n', ", line 2: unexpected end of data"),
        (b"name,usd\nx,1", " is cut off: its last line has no end"),
    ],
)
def test_every_kind_of_damage_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_rows(path, ("name", "usd"))
    assert str(error.value) == f"{path}{says}; reinstalling Berth restores it"


@pytest.mark.parametrize(
    ("cell", "says"),
    [("", "is empty"), ("much", "'much' is not a number"), ("nan", "'nan' is not a finite number"),
     ("-1", "-1 is negative"), ("0", "must be more than 0")],
)  # fmt: skip
def test_a_cell_that_is_no_amount_is_named_with_its_place(tmp_path: Path, cell: str, says: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"name,usd\nx,1\ny,{cell}\n")
    row = read_rows(path, ("name", "usd"), hint="; mend it")[1]
    with pytest.raises(UserError) as error:
        row.positive("usd")
    assert str(error.value) == f"{path}, line 3, column usd: {says}; mend it"
