"""What the watchdog writes on its own machine: events as JSON lines, and a state from which its successor goes on."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_runtime.watch.clock import Clock, instant

EVENTS_FILE = "events.jsonl"
STATE_FILE = "state.json"
MOST_EVENTS = 2000
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Record:
    """Keeps events in memory, in `folder` and on stderr. A full disk loses the file's copy and nothing else.

    `folder` should be in memory (/run): its state is of this boot alone.
    """

    def __init__(self, folder: Path, clock: Clock, say: Callable[[str], None] | None = None) -> None:
        self.folder, self._clock, self._say = folder, clock, say or _stderr
        self.events: list[dict[str, Any]] = []
        self.unwritten = ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.unwritten = str(error)
        self.events = self._earlier()

    def event(self, name: str, **said: Any) -> None:
        line = {"at": instant(self._clock.wall()), "event": name, **said}
        self.events.append(line)
        del self.events[1:-MOST_EVENTS]  # the first says when it began
        text = json.dumps(line)
        self._say(text)
        try:
            with (self.folder / EVENTS_FILE).open("a", encoding="utf-8") as file:
                file.write(text + "\n")
        except OSError as error:
            self.unwritten = str(error)

    def save(self, state: dict[str, Any]) -> None:
        draft = self.folder / f"{STATE_FILE}.tmp"
        try:
            draft.write_text(json.dumps({"boot": boot_id(), **state}) + "\n", encoding="utf-8")
            draft.replace(self.folder / STATE_FILE)
        except OSError as error:
            self.unwritten = str(error)

    def load(self) -> dict[str, Any] | None:
        """The state that a watchdog of this boot has left, None where there is none that can be read."""
        try:
            found = json.loads((self.folder / STATE_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("boot") == boot_id() else None

    def _earlier(self) -> list[dict[str, Any]]:
        try:
            lines = (self.folder / EVENTS_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # cut while it was written
        return [event for event in found if isinstance(event, dict)]


def boot_id() -> str:
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _stderr(line: str) -> None:
    sys.stderr.write(line + os.linesep)
    sys.stderr.flush()
