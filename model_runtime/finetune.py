"""Fine-tune a model: `python -m model_runtime.finetune SETTINGS.json`, on a training node as on a laptop.

Exit codes: 0 the artifact is there, 1 it failed and may be started again, 2 a mistake in the settings or the data,
75 stopped with a checkpoint: start it again to go on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from model_runtime.errors import ModelError
from model_runtime.training.settings import FinetuneSettings, read_settings, settings_from

LOST, REFUSED = 1, 2
OUT_OF_MEMORY = 3


def fit(settings: FinetuneSettings) -> str:
    """Train and return the artifact's folder; raises `ModelError`, also where the run was stopped before its end."""
    from model_runtime.training.launch import run
    from model_runtime.training.notice import Notice

    outcome = run(settings, say=_say, notice=Notice.here())
    if outcome.kind != "done":
        raise ModelError(f"stopped {outcome.message}; start it again to go on")
    return outcome.message


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m model_runtime.finetune", description=__doc__.splitlines()[0])
    parser.add_argument("settings", type=Path, help="a JSON file with the run's settings")
    parser.add_argument("--worker", type=int, metavar="MICRO_BATCH", help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--nodes", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--preflight", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.worker is not None:
        return _worker(given)
    from model_runtime.training.launch import INTERRUPTED, run
    from model_runtime.training.meeting import MeetingError
    from model_runtime.training.notice import Notice

    try:
        outcome = run(read_settings(given.settings), say=_say, notice=Notice.here())
    except ModelError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    except MeetingError as error:
        sys.stderr.write(f"{error}\n")
        return LOST
    if outcome.kind == "interrupted":
        _say(f"stopped {outcome.message}; start it again to go on")
        return INTERRUPTED
    return 0


def _worker(given: argparse.Namespace) -> int:
    """One process of the run that the launcher started."""
    from model_runtime.training.outcome import Outcome, write_outcome
    from model_runtime.training.plan import plan_of

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    settings = settings_from(json.loads(given.settings.read_text(encoding="utf-8")), str(given.settings))
    try:
        plan = replace(plan_of(settings), nodes=given.nodes)
        if not plan.details:
            # Without a plan the settings' processes are those of each machine.
            plan = replace(plan, processes=settings.processes * given.nodes)
        plan = plan.cut(given.worker, given.processes)
        from model_runtime.training.run import work

        outcome = work(settings, plan, preflight=given.preflight)
        if outcome.kind == "out-of-memory" and plan.processes > 1:
            # The others wait for this process in a collective: its end must be a failure for torchrun to end them, and
            # Python's own end would wait for the group.
            sys.stdout.flush()
            os._exit(OUT_OF_MEMORY)
    except ModelError as error:
        write_outcome(Path(settings.output), Outcome("refused", str(error)))
        return REFUSED
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
