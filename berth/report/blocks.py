"""What a report is made of, whatever it is printed as: sections of blocks, each block naming where it comes from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Fact:
    """One labelled value, `source` a kind of document (a key of `documents.KINDS`)."""

    label: str
    value: str
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Items:
    """A list of sentences."""

    items: tuple[str, ...]
    source: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Commands:
    """Commands to run, in order, each with what it does."""

    steps: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """`rows` of text; columns in `right` (by index) hold numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    source: str
    caption: str
    right: tuple[int, ...] = ()
    detail: bool = False
    """Folded away on the page until it is asked for; printed all the same."""


@dataclass(frozen=True, slots=True)
class StackedBar:
    """Parts of a whole against a capacity, in bytes; `low` and `high` are the range of their sum."""

    title: str
    parts: tuple[tuple[str, int], ...]
    source: str
    low: int
    high: int
    capacity: int | None = None
    capacity_label: str = ""


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars of one unit: (label, value, the value in words); None has no bar, only its words."""

    title: str
    bars: tuple[tuple[str, float | None, str], ...]
    source: str


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of points (x, y)."""

    label: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Curves:
    """Lines over one x axis; both axes start at 0."""

    title: str
    x: str
    y: str
    curves: tuple[Curve, ...]
    source: str


Block = Facts | Text | Items | Commands | Table | StackedBar | Bars | Curves


@dataclass(frozen=True, slots=True)
class Section:
    id: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A file of the report and the command that made it."""

    kind: str
    path: str
    command: str
    dated: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    title: str
    tentative: tuple[str, ...]
    """Why the report is tentative; empty where it is not."""
    glance: Facts
    sections: tuple[Section, ...]
    sources: tuple[Source, ...]
    missing: tuple[str, ...] = field(default=())
    """What the report lacks, and the command that would bring it."""

    def to_json(self) -> dict[str, Any]:
        """Blocks carry their class's name as `block`."""
        document = {"format": "berth-report/1", **asdict(self)}
        document["glance"] = list(document["glance"]["facts"])
        for section, plain in zip(self.sections, document["sections"], strict=True):
            plain["blocks"] = [
                {"block": type(block).__name__.lower(), **body}
                for block, body in zip(section.blocks, plain["blocks"], strict=True)
            ]
        return document
