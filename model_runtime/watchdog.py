"""Ends a machine that trains: at its expiry, when the job is done, when the GPUs idle, when AWS takes it back.

`python -m model_runtime.watchdog` runs on the host as a systemd unit. It asks the job to save, brings the artifact or
the newest whole checkpoint to S3, verifies it there, says what happened beside it, and powers the machine off.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_runtime.watch.clock import SystemClock, parse_instant
from model_runtime.watch.courier import ProcessCourier
from model_runtime.watch.dog import Ports, Watchdog
from model_runtime.watch.gpu import QUERY, Busy, nvidia_smi
from model_runtime.watch.job import Job, SupervisedJob, UnitJob, last_line
from model_runtime.watch.limits import Limits
from model_runtime.watch.machine import CommandMachine, Machine, SystemdMachine
from model_runtime.watch.metadata import BASE, Imds
from model_runtime.watch.record import Record

OFF = "off"


def beat(environment: Mapping[str, str] = os.environ) -> None:
    """Tell systemd that the watchdog is alive (sd_notify); nothing where systemd does not ask."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.settimeout(1.0)
        try:
            out.sendto(b"READY=1\nWATCHDOG=1", "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            sys.stderr.write(f"systemd does not listen: {error}\n")


def place(environment: Mapping[str, str]) -> str:
    """Where this machine's work goes, as the run itself names it: further nodes have places of their own."""
    bucket, prefix = environment.get("BERTH_BUCKET", ""), environment.get("BERTH_OUTPUT", "")
    if not (bucket and prefix):
        return ""
    rank = environment.get("BERTH_NODE_RANK", "0")
    return f"s3://{bucket}/{prefix.strip('/')}" + (f"/node-{rank}" if rank != "0" else "")


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model_runtime.watchdog",
        description=(__doc__ or "").splitlines()[0],
        epilog="After -- comes the command that starts a Python with boto3 for the uploads (default: this one).",
    )
    parser.add_argument("--output", required=True, help="the run's output folder, as that Python sees it")
    parser.add_argument(
        "--uri", default=place(environment), help="s3://BUCKET/PREFIX that stands for it (default: from BERTH_OUTPUT)"
    )
    parser.add_argument(
        "--expires-at",
        default=environment.get("BERTH_EXPIRES_AT", ""),
        help="when the machine must be gone, ISO 8601 (default: BERTH_EXPIRES_AT)",
    )
    parser.add_argument("--unit", default="", help="the job's systemd unit")
    parser.add_argument("--container", default="", help="the Docker container that the unit runs")
    parser.add_argument("--job", type=Path, help="the job's state file, where model_runtime.watch.supervise runs it")
    parser.add_argument("--log", type=Path, help="the job's log, whose last line goes into the status")
    parser.add_argument("--state", type=Path, default=Path("/run/berth-watchdog"), help="the watchdog's own folder")
    parser.add_argument("--gpus", default="nvidia-smi", help=f"the nvidia-smi to ask, or {OFF}")
    parser.add_argument("--metadata", default=BASE, help=f"the instance metadata service, or {OFF}")
    parser.add_argument(
        "--halt-command", help="run this instead of powering off, and set no dead man's switch (empty: nothing is run)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=NUMBER", help="one of the limits, as in watch/limits.py"
    )
    parser.add_argument("courier", nargs="*", help="what starts the Python of the uploads")
    return parser


def _limits(given: list[str]) -> Limits:
    found: dict[str, Any] = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in Limits.__dataclass_fields__:
            raise ValueError(f"--set {text}: there is no limit {name}; {', '.join(Limits.__dataclass_fields__)}")
        try:
            found[name] = float(value)
        except ValueError as error:
            raise ValueError(f"--set {text}: write NAME=NUMBER") from error
    return Limits(**found)


def build(given: argparse.Namespace, environment: Mapping[str, str]) -> Watchdog:
    """The watchdog for its options. Raises `ValueError` saying what is missing."""
    if not given.uri:
        raise ValueError("--uri is missing, and BERTH_BUCKET and BERTH_OUTPUT do not say it")
    if not given.expires_at:
        raise ValueError(
            "--expires-at is missing, and BERTH_EXPIRES_AT does not say it: a watched machine has an expiry"
        )
    if bool(given.unit) == bool(given.job):
        raise ValueError("give either --unit or --job")
    try:
        expires_at = parse_instant(given.expires_at)
    except ValueError as error:
        raise ValueError(f"--expires-at {given.expires_at!r}: write 2026-11-24T08:00:00Z") from error
    clock = SystemClock()
    job: Job = UnitJob(given.unit, given.container) if given.unit else SupervisedJob(given.job)
    machine: Machine = (
        SystemdMachine() if given.halt_command is None else CommandMachine(shlex.split(given.halt_command))
    )
    busy: Busy | None = None if given.gpus == OFF else nvidia_smi((given.gpus, *QUERY[1:]))
    record = Record(given.state, clock)
    ports = Ports(
        clock=clock,
        job=job,
        busy=busy,
        courier=ProcessCourier(given.courier or [sys.executable], given.output, given.uri, str(given.state)),
        machine=machine,
        record=record,
        metadata=None if given.metadata == OFF else Imds(given.metadata),
        beat=lambda: beat(environment),
        last_line=lambda: "" if given.log is None else last_line(given.log),
    )
    facts = {
        "stack": environment.get("BERTH_STACK", ""),
        "instance": environment.get("BERTH_INSTANCE", ""),
        "node_rank": environment.get("BERTH_NODE_RANK", "0"),
    }
    return Watchdog(_limits(given.set), expires_at, ports, facts)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 after a halt or when told to end (SIGTERM), 2 for a mistake in the options."""
    given = _parser(os.environ).parse_args(arguments)
    try:
        dog = build(given, os.environ)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2

    def told(*_: object) -> None:
        dog.record.event("told to end (SIGTERM)", phase=dog.memory.phase)
        sys.exit(0)

    signal.signal(signal.SIGTERM, told)
    dog.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
