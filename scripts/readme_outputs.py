"""Keeps the README's outputs true: runs each command that it shows and puts what it printed below it.

A ```console block whose first line is `$ berth …` holds one command and its output. Run by `make docs`; a test runs the
commands again and compares. The commands see an empty cache, so the data in force are those that the project ships.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from berth.report.files import write_text

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "README.md"
_BLOCK = re.compile(r"(```console\n\$ (berth [^\n]*)\n)(.*?)(```\n)", flags=re.DOTALL)


def output_of(line: str) -> str:
    """What the shell command `line` prints on stdout, 100 columns wide, blanks at line ends taken off."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "BERTH_CACHE_DIR": cache,
            "COLUMNS": "100",
            "NO_COLOR": "1",
        }
        ran = subprocess.run(["sh", "-c", line], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        sys.exit(f"`{line}` ended with exit code {ran.returncode}: {ran.stderr}")
    return "".join(f"{text.rstrip()}\n" for text in ran.stdout.rstrip().splitlines())


def render(page: str) -> str:
    """`page` with every shown output replaced by what its command prints."""
    return _BLOCK.sub(lambda block: block[1] + output_of(block[2]) + block[4], page)


def main() -> None:
    write_text(PAGE, render(PAGE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
