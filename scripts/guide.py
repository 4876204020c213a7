"""Runs the steps of docs/guide.md in their order and writes what they print below them.

    python -m scripts.guide            # all of it, some minutes: writes the page
    python -m scripts.guide --fast     # the quick steps alone, which `make docs` does

A ```console block holds one command and its output; `console slow` marks those that a plain test leaves out. They run
in a folder, a cache and a local AWS of their own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from berth.report.files import write_text
from scripts.demo import Demo, _free_port, tickets

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "guide.md"
SHOWN_PORT = "8080"
WIDTH = "100"
_BLOCK = re.compile(r"(```console( slow)?\n\$ ([^\n]*)\n)(.*?)(```\n)", flags=re.DOTALL)


@dataclass(frozen=True, slots=True)
class Step:
    """One block: its command, whether it is slow, and the output that the page shows."""

    line: str
    slow: bool
    shown: str


def steps(page: str) -> list[Step]:
    return [Step(line, bool(slow), shown) for _, slow, line, shown, _ in _BLOCK.findall(page)]


class Guide(Demo):
    """Runs the guide's steps in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.environ |= {"COLUMNS": WIDTH, "NO_COLOR": "1", "TERM": "dumb", "PYTHONUNBUFFERED": "1"}
        self.port = _free_port()

    def prepare(self) -> None:
        """What a reader has: the project's file, the answers, tickets."""
        import json

        shutil.copy(ROOT / "Pulumi.yaml", self.folder)
        shutil.copy(ROOT / "docs" / "support-tickets.json", self.folder)
        rows = "".join(json.dumps(row) + "\n" for row in tickets())
        (self.folder / "tickets.jsonl").write_text(rows, encoding="utf-8")
        (self.folder / "reports" / "tickets").mkdir(parents=True)

    def output(self, step: Step) -> str:
        """What a step prints, blanks at line ends taken off. Raises `RuntimeError` where it fails."""
        if step.line.startswith("berth down") or step.line == "berth sandbox down":
            self.stop_serving()
        line = step.line.replace(f":{SHOWN_PORT}", f":{self.port}").replace(
            f"--port {SHOWN_PORT}", f"--port {self.port}"
        )
        if line.endswith(" &"):
            self._serve(line.removesuffix(" &"), self.port)
            return ""
        ran = subprocess.run(
            ["sh", "-c", line], cwd=self.folder, env=self.environ, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False, timeout=900,
        )  # fmt: skip
        if ran.returncode != 0:
            raise RuntimeError(f"`{line}` ended with exit code {ran.returncode}:\n{ran.stdout}\n{ran.stderr}")
        text = (ran.stdout if ran.stdout.strip() else ran.stderr).replace(f":{self.port}", f":{SHOWN_PORT}")
        text = text.replace(str(self.folder), ".").replace(sys.prefix, ".venv").rstrip()
        return "".join(f"{part.rstrip()}\n" for part in text.splitlines())


@contextmanager
def guide() -> Iterator[Guide]:
    """A guide in a folder that is gone afterwards, and whatever it has started as well."""
    with tempfile.TemporaryDirectory(prefix="berth-guide-") as place:
        running = Guide(Path(place))
        running.prepare()
        try:
            yield running
        finally:
            running.end()


def render(page: str, running: Guide, *, slow_too: bool = True) -> str:
    """`page` with every output replaced by what its step prints; those of slow steps only where they are wanted."""
    parts, at = [], 0
    for block in _BLOCK.finditer(page):
        if block[2] and not slow_too:
            continue
        print(f"$ {block[3]}", file=sys.stderr, flush=True)
        parts += [
            page[at : block.start()],
            block[1],
            running.output(Step(block[3], bool(block[2]), block[4])),
            block[5],
        ]
        at = block.end()
    return "".join([*parts, page[at:]])


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    with guide() as running:
        made = render(page, running, slow_too="--fast" not in sys.argv)
    write_text(PAGE, made)


if __name__ == "__main__":
    main()
