"""Keeps the outputs shown in some pages of docs/ true, as scripts/readme_outputs.py does for the README.

Run by `make docs`; a test runs the commands again and compares.
"""

from __future__ import annotations

from pathlib import Path

from scripts.readme_outputs import render

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = ("costs-and-safety.md",)
"""Pages whose ```console blocks need nothing but the repository."""


def main() -> None:
    for name in PAGES:
        page = DOCS / name
        draft = page.with_suffix(".tmp")
        draft.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
        draft.replace(page)


if __name__ == "__main__":
    main()
