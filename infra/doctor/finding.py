"""What a check found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ok", "failed", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`fix` says what to do where the status is not ok."""

    check: str
    status: Status
    said: str
    fix: str = ""

    def to_json(self) -> dict[str, str | None]:
        return {"check": self.check, "status": self.status, "said": self.said, "fix": self.fix or None}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the checks ask: AWS by service name, the command line, the environment. Tests pass their own."""

    client: Callable[[str], Any]
    run: Callable[[list[str]], str | None]
    """The output of a command, None where it is not installed or fails."""
    environment: Mapping[str, str]
