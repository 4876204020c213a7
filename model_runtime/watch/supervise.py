"""Runs one process and writes down how it ended: `python -m model_runtime.watch.supervise STATE.json -- COMMAND…`.

What systemd is on a training node, for a job that runs elsewhere: it outlives whoever started it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from model_runtime.watch.job import started


def write_state(path: Path, document: dict[str, Any]) -> None:
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(json.dumps(document) + "\n", encoding="utf-8")
    draft.replace(path)


def supervise(path: Path, command: list[str]) -> int:
    """Run `command` to its end; its exit code, or 128 + the number of the signal that ended it."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 (given to run)
    signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGTERM))
    state: dict[str, Any] = {
        "command": command,
        "pid": process.pid,
        "started": started(process.pid),
        "supervisor": os.getpid(),
        "supervisor_started": started(os.getpid()),
    }
    write_state(path, state)
    code = process.wait()
    write_state(path, {**state, "exit_code": code if code >= 0 else None, "signal": -code if code < 0 else None})
    return code if code >= 0 else 128 - code


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m model_runtime.watch.supervise", description=__doc__.splitlines()[0]
    )
    parser.add_argument("state", type=Path, help="the JSON file that says what runs and how it ended")
    parser.add_argument("command", nargs="+", help="what to run")
    given = parser.parse_args(arguments)
    try:
        return supervise(given.state, given.command)
    except OSError as error:
        sys.stderr.write(f"{given.command[0]} cannot be run: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
