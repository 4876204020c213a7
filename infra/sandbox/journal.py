"""What was made in a sandbox, in the order in which it was made: enough to take it down again, and nothing more.

It belongs to one run of the local AWS, which keeps everything in memory: when that ends, so does what is written here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from infra.stack_files import write_text
from sizing.errors import UserError


@dataclass(frozen=True, slots=True)
class Made:
    """One resource that was made. `lacking` is what moto has nothing of, empty where it was really made."""

    type: str
    name: str
    id: str
    inputs: Mapping[str, Any]
    lacking: str = ""


@dataclass(slots=True)
class StackRecord:
    """A stack in the sandbox. `complete` is False while it is being made or removed, and where that broke off."""

    name: str
    region: str
    since: str
    expires_at: str = ""
    complete: bool = False
    outputs: dict[str, Any] = field(default_factory=dict)
    stand_ins: dict[str, str] = field(default_factory=dict)
    made: list[Made] = field(default_factory=list)
    uses: str = ""
    """The shared stack from which it takes its artifacts."""


class Journal:
    """The stacks of one run of the local AWS, written to a file after every step."""

    def __init__(self, path: Path, run: str) -> None:
        """Read the file at `path`; what another run than `run` left is passed over. Raises `UserError`."""
        self.path, self.run = path, run
        self.stacks: dict[str, StackRecord] = {}
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
        try:
            document = json.loads(text)
            if document["run"] != run:
                return
            for given in document["stacks"]:
                made = [Made(**m) for m in given.pop("made")]
                self.stacks[given["name"]] = StackRecord(**given, made=made)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is no journal of a sandbox ({error}); `berth sandbox down --force` ends the sandbox without it"
            ) from None

    def save(self) -> None:
        """Replace the file whole. Raises `UserError` where it cannot be written."""
        stacks = [asdict(record) for record in self.stacks.values()]
        try:
            write_text(self.path, json.dumps({"run": self.run, "stacks": stacks}, indent=1) + "\n")
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror}") from None

    def users_of(self, shared: str) -> list[str]:
        """The stacks that take their artifacts from `shared`."""
        return sorted(r.name for r in self.stacks.values() if r.uses == shared and r.name != shared)


def journal_in(folder: Path, run: str) -> Journal:
    """The journal of the sandbox whose files lie in `folder`."""
    return Journal(folder / "journal.json", run)
