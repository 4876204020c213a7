"""The set-up that the README promises: a fresh clone, `make demo`, and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_make_demo_works_in_a_fresh_clone_and_installs_nothing_the_second_time(tmp_path: Path) -> None:
    clone = tmp_path / "a clone"  # with a blank in its name
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS")}

    def demo() -> str:
        ran = subprocess.run(
            ["make", "demo"],
            cwd=clone,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    first, second = demo(), demo()
    assert "Installing" in first
    assert "Installing" not in second
    assert "g4dn.2xlarge" in second
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert status.stdout == ""


def test_a_python_that_is_too_old_is_named_with_what_to_do(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.8.18" && exit 0\nexit 1\n')
    old.chmod(0o755)
    ran = subprocess.run(
        ["/bin/sh", ROOT / "scripts" / "venv.sh", tmp_path / "venv", "base"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode != 0
    assert "needs Python 3.11 or later; found: Python 3.8.18" in ran.stderr
    assert "PYTHON=" in ran.stderr
    assert not (tmp_path / "venv").exists()
