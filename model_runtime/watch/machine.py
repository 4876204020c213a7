"""The machine's end: by `systemctl poweroff`, more roughly when that does not help, and a dead man's switch before."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Protocol

from model_runtime.watch.command import Ran, run

HALTS = (
    ("systemctl", "poweroff"),
    ("systemctl", "poweroff", "--force"),
    ("systemctl", "poweroff", "--force", "--force"),
)
"""In this order: units are stopped; all processes are killed; the kernel is told at once."""
DEAD_MAN = "berth-deadman"


class Machine(Protocol):
    final: bool
    """Whether the watchdog is done once a halt was taken; otherwise the machine's end ends it."""
    arms: bool
    """Whether it has a dead man's switch."""

    def halt(self, attempt: int) -> str:
        """End the machine, more roughly with each attempt from 0. Returns what went wrong."""
        ...

    def arm(self, seconds: float) -> str:
        """Have the machine end in `seconds`, whatever becomes of the watchdog. Returns what went wrong."""
        ...


class SystemdMachine:
    """A systemd timer is the dead man's switch: it counts elapsed time, so a clock that is set does not move it."""

    final = False
    arms = True

    def __init__(self, command: Callable[..., Ran] = run) -> None:
        self._run = command

    def halt(self, attempt: int) -> str:
        return self._run(HALTS[min(attempt, len(HALTS) - 1)], 10.0).problem

    def arm(self, seconds: float) -> str:
        whole = max(1, int(seconds))
        before = self._armed()
        name = next(f"{DEAD_MAN}-{n}" for n in itertools.count(1) if f"{DEAD_MAN}-{n}.timer" not in before)
        armed = self._run(
            ["systemd-run", f"--unit={name}", f"--on-active={whole}", "--timer-property=AccuracySec=1s", *HALTS[0]]
        )
        if not armed.well:
            fallback = self._run(["shutdown", "-P", f"+{max(1, whole // 60)}"])
            return "" if fallback.well else f"{armed.problem}; {fallback.problem}"
        # The one before goes only when its successor stands.
        problems = [self._run(["systemctl", "stop", unit]).problem for unit in before]
        return "; ".join(p for p in problems if p)

    def _armed(self) -> list[str]:
        listed = self._run(["systemctl", "list-units", "--all", "--plain", "--no-legend", f"{DEAD_MAN}*.timer"])
        return [line.split()[0] for line in listed.out.splitlines() if line.strip()] if listed.well else []


class CommandMachine:
    """Where no machine is to be powered off (the sandbox): `command` runs instead; there is no dead man's switch."""

    final = True
    arms = False

    def __init__(self, command: list[str], runner: Callable[..., Ran] = run) -> None:
        self._command, self._run = command, runner

    def halt(self, attempt: int) -> str:  # noqa: ARG002 (always the same)
        return self._run(self._command, 10.0).problem if self._command else ""

    def arm(self, seconds: float) -> str:  # noqa: ARG002
        return "no dead man's switch here"
