"""What a host fetches is checked byte by byte, in the form that model_runtime writes its manifests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra import metrics
from infra.host import fetch
from model_runtime.handler import emf
from model_runtime.manifest import write_manifest

FETCH = Path(fetch.__file__)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "model_runtime").mkdir(parents=True)
    (folder / "model.py").write_text("handler", encoding="utf-8")
    (folder / "model_runtime" / "load.py").write_bytes(b"\x00" * 5_000_000)
    write_manifest(folder)
    return folder


def test_a_folder_as_its_manifest_says_is_whole(bundle: Path) -> None:
    assert fetch.problems(bundle, "") == []
    assert fetch.problems(bundle, fetch.digest(bundle / "manifest.json")) == []


def test_what_is_missing_damaged_or_someone_else_s_is_named(bundle: Path) -> None:
    assert fetch.problems(bundle, "0" * 64) == ["manifest.json is not the one that the stack names"]
    (bundle / "model.py").write_text("handlex", encoding="utf-8")
    assert fetch.problems(bundle, "") == ["model.py is damaged"]
    (bundle / "model_runtime" / "load.py").unlink()
    assert "model_runtime/load.py is missing" in fetch.problems(bundle, "")
    (bundle / "manifest.json").unlink()
    assert fetch.problems(bundle, "") == ["manifest.json is missing"]


def test_a_manifest_may_not_lead_out_of_the_folder(bundle: Path) -> None:
    outside = {"files": [{"path": "../secret", "size": 1, "sha256": "x"}]}
    (bundle / "manifest.json").write_text(json.dumps(outside), encoding="utf-8")
    assert fetch.problems(bundle, "") == ["../secret leads out of the folder"]


def fake_aws(folder: Path, script: str) -> dict[str, str]:
    """An `aws` command of our own in front of the PATH."""
    bin_ = folder / "bin"
    bin_.mkdir()
    (bin_ / "aws").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (bin_ / "aws").chmod(0o755)
    return {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}"}


def run(target: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FETCH), "bucket", "bundles/trial", str(target)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_damaged_file_is_fetched_anew(bundle: Path, tmp_path: Path) -> None:
    copy = 'src=BUNDLE; for last; do :; done; for f in $(cd $src && find . -type f); do [ -f "$last/$f" ] || '
    copy += '{ mkdir -p "$(dirname "$last/$f")"; cp "$src/$f" "$last/$f"; }; done'
    target = tmp_path / "target"
    target.mkdir()
    (target / "model.py").write_text("tampered", encoding="utf-8")
    ran = run(target, fake_aws(tmp_path, copy.replace("BUNDLE", str(bundle))))
    assert ran.returncode == 0, ran.stderr
    assert "model.py is damaged" in ran.stderr
    assert (target / "model.py").read_text(encoding="utf-8") == "handler"


def test_a_copy_that_fails_thrice_ends_with_an_error(tmp_path: Path) -> None:
    ran = run(tmp_path / "target", fake_aws(tmp_path, "exit 7"))
    assert ran.returncode == 1
    assert ran.stderr.count("aws s3 sync ended with 7") == 3


def test_alarms_read_the_metrics_that_the_handler_writes() -> None:
    assert {metrics.LATENCY, metrics.ERRORS, metrics.QUEUE_TIME} <= set(emf.UNITS)
    assert emf.UNITS[metrics.LATENCY] == emf.UNITS[metrics.QUEUE_TIME] == "Milliseconds"
    assert Path(metrics.METRICS_FILE) == emf.HOST_FILE
    line = json.loads(emf.emf_line({metrics.LATENCY: 1.0}, namespace=metrics.NAMESPACE, model="m", stack="trial"))
    assert [metrics.STACK_DIMENSION] in line["_aws"]["CloudWatchMetrics"][0]["Dimensions"]
    host = (Path(fetch.__file__).parent / "common.sh").read_text(encoding="utf-8")
    assert f'--dimensions "{metrics.STACK_DIMENSION}=$BERTH_STACK"' in host
    assert line[metrics.STACK_DIMENSION] == "trial"
