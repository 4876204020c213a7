"""Keeps docs/architecture.md true: the picture beside it, and the map of every folder and module by its own first line.

Run by `make docs`; a test fails where page and code disagree.
"""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

from berth.report.files import write_text
from scripts.architecture_picture import render as picture

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PICTURE = ROOT / "docs" / "architecture.svg"
ROOMS = ("sizing", "model_runtime", "infra", "berth")
START, END = "<!-- map: written by scripts/architecture_page.py -->\n", "<!-- end of map -->\n"


def modules() -> list[Path]:
    """Every module of the four packages that is, or would be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *ROOMS],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    paths = (ROOT / name for name in listed.split("\0") if name.endswith(".py"))
    return sorted(path for path in paths if path.is_file())


def said(path: Path) -> str:
    """The first line of a module's docstring, as a cell of a table."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    line = text.split("\n\n", maxsplit=1)[0].replace("\n", " ").strip()
    return line.replace("|", "\\|").replace("<", "\\<")


def render_map() -> str:
    """One section a room: folders with their purpose, each with its modules."""
    parts = []
    for room in ROOMS:
        own = [path for path in modules() if path.relative_to(ROOT).parts[0] == room]
        parts.append(f"### {room}\n\n{said(ROOT / room / '__init__.py')}\n")
        for folder in sorted({path.parent for path in own}):
            rows = [path for path in own if path.parent == folder and path.name != "__init__.py"]
            if not rows:
                continue
            init = folder / "__init__.py"
            name = folder.relative_to(ROOT).as_posix()
            about = said(init) if init.is_file() and folder.name != room else ""
            parts.append(f"**`{name}/`** {about}".rstrip() + "\n\n| file | what it holds |\n|---|---|")
            parts[-1] += "".join(f"\n| `{path.name}` | {said(path)} |" for path in rows) + "\n"
    return "\n".join(parts) + "\n"


def render(page: str) -> str:
    """`page` with the map between its marks made anew."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{render_map()}\n{END}{after}"


def main() -> None:
    for path, text in ((PAGE, render(PAGE.read_text(encoding="utf-8"))), (PICTURE, picture())):
        write_text(path, text)


if __name__ == "__main__":
    main()
