"""The job that is watched: a systemd unit on a training node, a supervised process elsewhere."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from model_runtime.watch.command import Ran, run

Kind = Literal["waiting", "running", "succeeded", "failed", "unknown"]
INTERRUPTED = 75
"""Exit code of a run that stopped with a checkpoint (model_runtime.finetune)."""


@dataclass(frozen=True)
class JobState:
    """`waiting`: not begun; `unknown`: could not be asked. `exit_code` or `signal` where it ended."""

    kind: Kind
    exit_code: int | None = None
    signal: int | None = None
    detail: str = ""

    @property
    def ended(self) -> bool:
        return self.kind in ("succeeded", "failed")

    def to_json(self) -> dict[str, Any]:
        return {"state": self.kind, "exit_code": self.exit_code, "signal": self.signal, "detail": self.detail}


class Job(Protocol):
    """None of these waits for the job."""

    def state(self) -> JobState: ...
    def ask_to_stop(self) -> str:
        """SIGTERM: save a checkpoint and end. Returns what went wrong, empty where nothing did."""
        ...

    def kill(self) -> str:
        """SIGKILL. Returns what went wrong."""
        ...


class UnitJob:
    """A systemd unit that runs a container. Its restarts are systemd's, up to `most_restarts`."""

    _ASKED = (
        "ActiveState",
        "SubState",
        "Result",
        "ExecMainCode",
        "ExecMainStatus",
        "NRestarts",
        "ExecMainStartTimestamp",
    )

    def __init__(
        self, unit: str, container: str = "", most_restarts: int = 3, command: Callable[..., Ran] = run
    ) -> None:
        self.unit, self.container, self.most_restarts, self._run = unit, container, most_restarts, command

    def state(self) -> JobState:
        ran = self._run(["systemctl", "show", self.unit, *(f"--property={name}" for name in self._ASKED)])
        if not ran.well:
            return JobState("unknown", detail=ran.problem)
        said = dict(line.split("=", 1) for line in ran.out.splitlines() if "=" in line)
        active, restarts = said.get("ActiveState", ""), int(said.get("NRestarts") or 0)
        status, result = int(said.get("ExecMainStatus") or 0), said.get("Result", "")
        if active in ("activating", "active", "reloading", "deactivating", "refreshing"):
            if restarts > self.most_restarts:
                return JobState("failed", detail=f"ended {restarts} times, each time started again")
            return JobState("running", detail=f"started again {restarts} times" if restarts else "")
        if active == "inactive" and not said.get("ExecMainStartTimestamp"):
            return JobState("waiting")
        if active not in ("inactive", "failed"):
            return JobState("unknown", detail=f"{self.unit} is {active or 'unknown to systemd'}")
        if result == "success" and status == 0:
            return JobState("succeeded", 0)
        killed = said.get("ExecMainCode") in ("2", "3")  # CLD_KILLED, CLD_DUMPED
        return JobState("failed", None if killed else status, status if killed else None, _meaning(result, status))

    def ask_to_stop(self) -> str:
        return self._run(["systemctl", "stop", "--no-block", self.unit]).problem

    def kill(self) -> str:
        problems = [self._run(["systemctl", "kill", "--signal=SIGKILL", self.unit]).problem]
        if self.container:
            # Docker's own process holds the container, not the unit.
            problems.append(self._run(["docker", "kill", self.container]).problem)
        return "; ".join(p for p in problems if p)


def _meaning(result: str, status: int) -> str:
    if status == INTERRUPTED:
        return "stopped with a checkpoint"
    if result == "oom-kill" or status == 128 + signal.SIGKILL:
        return "killed: out of memory, or by hand"
    return result


class SupervisedJob:
    """A process that `model_runtime.watch.supervise` runs; `path` is the file in which it keeps its state."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def state(self) -> JobState:
        found = self._read()
        if found is None:
            return JobState("waiting")
        if "exit_code" in found:
            code, number = found["exit_code"], found["signal"]
            if code == 0:
                return JobState("succeeded", 0)
            return JobState("failed", code, number, _meaning("", 128 + number if number else code))
        if alive(found["pid"], found["started"]) or alive(found["supervisor"], found["supervisor_started"]):
            return JobState("running")
        found = self._read() or found  # it may have ended between the two looks
        if "exit_code" in found:
            return self.state()
        return JobState("failed", detail="it and its supervisor are gone without a word")

    def ask_to_stop(self) -> str:
        return self._signal(signal.SIGTERM)

    def kill(self) -> str:
        return self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> str:
        found = self._read()
        if found is None or not alive(found["pid"], found["started"]):
            return ""
        try:
            # The process leads a group of its own; a kill ends its children as well, a wish to stop is for it alone.
            (os.killpg if number == signal.SIGKILL else os.kill)(found["pid"], number)
        except OSError as error:
            return f"{number.name} to {found['pid']}: {error}"
        return ""

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None


_LOG_END = 8192
_LONGEST_LINE = 400


def last_line(path: Path) -> str:
    """The last line of a job's log that says something, cut; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _LOG_END))
            lines = file.read(_LOG_END).decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:_LONGEST_LINE] for line in reversed(lines) if line.strip()), "")


def started(pid: int) -> int:
    """When a process began, in clock ticks since the boot: a later one of the same number has another. 0: gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] in ("Z", "X") else int(fields[19])


def alive(pid: int, since: int) -> bool:
    return since != 0 and started(pid) == since
