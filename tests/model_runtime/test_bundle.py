"""The model folder: settings there and back, a manifest that holds, a runtime that needs nothing else of Berth."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.errors import ModelError
from model_runtime.handler.bundle import write_bundle, write_feedback_bundle
from model_runtime.handler.settings import ServingSettings, parse_properties, read_folder, read_properties, render
from model_runtime.manifest import check_folder, sha256_of

NAMES = st.text("abcXYZ019./:@+=,~_-", min_size=1, max_size=20)


@given(
    st.builds(
        ServingSettings,
        model=NAMES,
        model_name=NAMES,
        dtype=st.sampled_from(["auto", "fp32", "fp16", "bf16"]),
        quantize=st.sampled_from(["", "int8", "nf4"]),
        batch_size=st.integers(1, 256),
        max_batch_delay_ms=st.integers(0, 60_000),
        max_input_tokens=st.none() | st.integers(1, 10**6),
        max_output_tokens=st.integers(1, 10**6),
        allow_pickle=st.booleans(),
    )
)
def test_settings_survive_serving_properties(settings: ServingSettings) -> None:
    text = render(settings)
    assert read_properties(parse_properties(text)) == settings
    # The engine hands options over without their prefix.
    assert read_properties({k.removeprefix("option."): v for k, v in parse_properties(text).items()}) == settings


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be 1 to 256"),
        ({"batch_size": 257}, "batch_size is 257"),
        ({"dtype": "fp8"}, "one of auto, fp32, fp16, bf16"),
        ({"quantize": "int2"}, "one of none, int8, nf4, nf4-dq"),
        ({"model_name": "a\nb"}, "letters, digits"),
        ({"model": "C:\\models"}, "letters, digits"),
        ({"max_input_tokens": 0}, "at least 1"),
    ],
)
def test_settings_that_cannot_be_served_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        ServingSettings(**{"model": "m", **wrong})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("engine=Python\n", "no option.model_location"),
        ("just words\n", "has no '='"),
        ("option.model_location=m\nbatch_size=many\n", "whole number"),
        ("option.model_location=m\noption.allow_pickle=perhaps\n", "true or false"),
    ],
)
def test_a_broken_serving_properties_is_told(text: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        read_properties(parse_properties(text))


def test_a_bundle_holds_what_its_manifest_says(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    settings = ServingSettings("google/flan-t5-xl", batch_size=3)
    made = write_bundle(tmp_path / "b", settings, weights=tiny("t5"), archive=True)
    assert check_folder(made.folder) == made.files
    assert made.manifest_sha256 == sha256_of(made.folder / "manifest.json")
    assert read_folder(made.folder).model == "./weights"
    assert read_folder(made.folder).location(made.folder, {}) == str((made.folder / "weights").resolve())
    assert read_folder(made.folder).location(made.folder, {"BERTH_MODEL_DIR": "elsewhere"}) == "elsewhere"
    with tarfile.open(made.archive) as tar:  # type: ignore[arg-type]
        assert {m.name for m in tar.getmembers()} == {e.path for e in made.files} | {"manifest.json"}
    again = write_bundle(tmp_path / "b", settings, weights=tiny("t5"), archive=True)
    assert again.manifest_sha256 == made.manifest_sha256


def test_the_same_files_make_the_same_archive(tmp_path: Path) -> None:
    packed = [
        write_bundle(tmp_path / place / "b", ServingSettings("m"), archive=True).archive for place in ("one", "two")
    ]
    assert packed[0].read_bytes() == packed[1].read_bytes()  # type: ignore[union-attr]


def test_what_is_no_bundle_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelError, match="is no model folder"):
        write_bundle(tmp_path, ServingSettings("m"))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(ModelError, match=r"no config\.json"):
        write_bundle(tmp_path / "new", ServingSettings("m"), weights=tmp_path)
    assert not (tmp_path / "new").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_bundle_s_runtime_needs_nothing_else_of_berth(tmp_path: Path) -> None:
    made = write_bundle(tmp_path / "b", ServingSettings("m"))
    feedback = write_feedback_bundle(tmp_path / "f", feedback_uri="s3://bucket/feedback")
    program = """
import importlib, json, pathlib, sys
sys.modules["sizing"] = sys.modules["berth"] = sys.modules["infra"] = None
sys.path.insert(0, sys.argv[1])
import model
for path in sorted(pathlib.Path(sys.argv[1], "model_runtime").rglob("*.py")):
    name = ".".join(path.relative_to(sys.argv[1]).with_suffix("").parts).removesuffix(".__init__")
    if not name.endswith(".model"):
        importlib.import_module(name)
import model_runtime
print(json.dumps([model_runtime.__file__, model.__file__]))
"""
    for folder in (made.folder, feedback.folder):
        ran = subprocess.run(
            [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        assert all(Path(p).is_relative_to(folder) for p in json.loads(ran.stdout.splitlines()[-1]))


def test_the_command_writes_a_bundle(
    run_berth: Callable[..., Any], tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    ran = run_berth("bundle", tiny("llama"), "-o", tmp_path / "b", "--include-weights", "--batch-size", 2, "--json")
    document = json.loads(ran.out)
    assert ran.code == 0
    assert read_folder(tmp_path / "b").batch_size == 2
    assert read_folder(tmp_path / "b").model_name == "llama"
    assert document["manifest_sha256"] == sha256_of(tmp_path / "b" / "manifest.json")
    shown = run_berth("bundle", "feedback", "-o", tmp_path / "f", "--feedback-uri", "s3://bucket/feedback")
    assert document["manifest_sha256"] not in shown.out
    assert "option.feedback_uri=s3://bucket/feedback" in (tmp_path / "f" / "serving.properties").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("google/flan-t5-xl", "--include-weights"), "needs a folder"),
        (("google/flan-t5-xl", "--dtype", "fp7"), "dtype is 'fp7'"),
        (("google/flan-t5-xl", "--batch-size", "0"), "batch_size is 0"),
    ],
)
def test_the_command_tells_a_mistake_in_one_line(
    run_berth: Callable[..., Any], tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    ran = run_berth("bundle", *arguments, "-o", tmp_path / "b")
    assert ran.code == 2
    assert len(ran.err.splitlines()) == 1
    assert says in ran.err
