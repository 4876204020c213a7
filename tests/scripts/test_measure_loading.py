"""The loading measurement, run for real on files of 0.2 GB."""

from __future__ import annotations

import csv
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "measure_loading.py"

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the figures come from /proc")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure_loading", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_quick_run_puts_the_ways_in_the_expected_order(script: ModuleType, tmp_path: Path) -> None:
    cases = [
        # One set of files, made once: each process spends ten seconds of a core on importing transformers.
        script.Case("from-pretrained", "fp32", "fp32", "bin"),
        script.Case("from-pretrained", "fp32", "bf16", "bin"),
        script.Case("build-load", "fp32", "fp32", "bin"),
    ]
    said: list[str] = []
    rows = script.run_cases(cases, script.QUICK_MODELS, tmp_path, said.append)
    assert len(rows) == len(said) == 3
    mapped, converted, built = rows
    # Memory-mapped weights are pages of the file; nothing is allocated.
    assert mapped.anon_ratio < 0.1
    assert mapped.peak_ratio == pytest.approx(1.0, abs=0.1)
    # A conversion allocates the new weights beside the file's pages, which are twice as large.
    assert converted.anon_ratio == pytest.approx(1.0, abs=0.15)
    assert converted.peak_ratio == pytest.approx(3.0, abs=0.3)
    # The plain way allocates the model and the state dict.
    assert built.anon_ratio == pytest.approx(2.0, abs=0.15)
    assert built.peak_ratio == pytest.approx(2.0, abs=0.2)
    assert mapped.peak_bytes < built.peak_bytes
    assert mapped.model_bytes == 4 * mapped.params
    assert converted.model_bytes == 2 * mapped.params
    assert mapped.transformers
    assert mapped.machine
    assert list(tmp_path.iterdir()) == [], "the weight files are deleted"

    script.write_csv(rows, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(r["peak_ratio"]) for r in written] == [r.peak_ratio for r in rows]
    assert [p.name for p in tmp_path.iterdir()] == ["rows.csv"]


def dying(words: str) -> Callable[..., list[str]]:
    """In place of the child's command: a process that ends with `words` on its error output."""
    return lambda *_: [sys.executable, "-c", f"import sys; print('banner'); sys.exit({words!r})"]


def test_a_load_that_fails_is_an_error_with_its_reason_and_no_figure(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "child_command", dying("OSError: no file named model.safetensors"))
    case = script.Case("from-pretrained", "fp32", "fp32", "safetensors")
    with pytest.raises(RuntimeError, match="from-pretrained of a-model ended with 1: OSError: no file named"):
        script.measure(case, "a-model", tmp_path)


def test_a_failure_leaves_no_files(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "child_command", dying("OSError: no space left on device"))
    case = script.Case("from-pretrained", "fp32", "fp32", "safetensors")
    with pytest.raises(RuntimeError, match="could not be made: OSError: no space left"):
        script.run_cases([case], script.QUICK_MODELS, tmp_path, lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_way_is_named_with_the_known_ones(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--only", "teleport"]) == 2
    assert "unknown way teleport; known: from-pretrained" in capsys.readouterr().err


def test_another_system_than_linux_is_refused(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert script.main(["--quick"]) == 2
    assert "Linux only" in capsys.readouterr().err


def test_every_case_has_a_way_with_an_explanation(script: ModuleType) -> None:
    assert {case.way for case in script.CASES} == set(script.WAYS)
