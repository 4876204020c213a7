"""The `berth` commands that the documentation shows: every one found, so that tests can parse and run them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
GENERATED = frozenset({"commands.md", "json.md", "settings.md", "accuracy.md", "throughput.md"})
"""Pages that scripts write out of the commands themselves."""
_FENCED = re.compile(r"^[ ]{0,4}```(\w*)\n(.*?)^[ ]{0,4}```\s*$", flags=re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"^ {4}((?:\$ )?berth .*)$", flags=re.MULTILINE)
_COMMENT = re.compile(r"(?<!\S)#.*")
_NEXT = re.compile(r"&&|\|\||[|;]")


@dataclass(frozen=True, slots=True)
class Shown:
    """One command: the page, the line as it stands, the words after `berth` without redirections and pipes."""

    page: str
    line: str
    words: tuple[str, ...]


def shown_in(page: Path) -> list[Shown]:
    """Every command in the blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    lines = [line for _, block in _FENCED.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    lines += _INDENTED.findall(_FENCED.sub("", text))
    found = []
    for line in lines:
        plain = line.strip().removeprefix("$ ")
        if not plain.startswith("berth "):
            continue
        found += [Shown(page.name, plain, words) for words in _commands(plain)]
    return found


def _commands(line: str) -> list[tuple[str, ...]]:
    parts = _NEXT.split(_COMMENT.sub("", line))
    words = [_without_redirection(shlex.split(part)) for part in parts]
    return [tuple(w[1:]) for w in words if w and w[0] == "berth"]


def _without_redirection(words: list[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in (">", ">>", "<", "2>"):
            skip = True
        elif word == "&":
            break
        else:
            kept.append(word)
    return kept


def pages() -> list[Path]:
    """The pages whose commands are checked, the README with them."""
    return [ROOT / "README.md", *sorted(p for p in DOCS.glob("*.md") if p.name not in GENERATED)]


def all_shown() -> list[Shown]:
    return [shown for page in pages() for shown in shown_in(page)]
