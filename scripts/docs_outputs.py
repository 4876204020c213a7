"""Keeps the outputs shown in some pages of docs/ true, as scripts/readme_outputs.py does for the README.

Run by `make docs`; a test runs the commands again and compares.
"""

from __future__ import annotations

from pathlib import Path

from berth.report.files import write_text
from scripts.readme_outputs import render

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = ("costs-and-safety.md",)
"""Pages whose ```console blocks need nothing but the repository."""


def main() -> None:
    for name in PAGES:
        page = DOCS / name
        write_text(page, render(page.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
