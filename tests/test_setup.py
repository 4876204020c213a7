"""The set-up that `make demo` and `make test` do. (A fresh clone: tests/end_to_end/test_demo.py.)"""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


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
