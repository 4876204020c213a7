"""What a check asks, and what it found."""

from __future__ import annotations

import shutil
import subprocess
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


def run_command(command: list[str]) -> str | None:
    """A command's output; None where it is not installed, fails or hangs."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        ran = subprocess.run(  # noqa: S603 (words of our own)
            [program, *command[1:]], capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    return ran.stdout if ran.returncode == 0 else None
