"""Where the sandbox keeps a copy of the project and the engine's state: one folder a run of the local AWS."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from infra.cloud import not_running
from infra.sandbox.project import sandbox_project
from infra.sandbox.server import Server, find, sandbox_dir, start

RUNS = "runs"


@dataclass(frozen=True, slots=True)
class Place:
    """`project`: the copy, in which choices and expiries are recorded, so that a trial leaves the person's files as
    they are. `state`: for the engine. Both end with the run: the local AWS keeps everything in memory."""

    folder: Path
    server: Server
    project: Path
    state: Path


def find_place(root: Path, folder: Path | None = None) -> Place | None:
    """The place of the run that goes on, its copy brought up to date; None where no local AWS runs."""
    base = folder or sandbox_dir()
    server = find(base)
    return None if server is None else _place(root, base, server)


def open_place(root: Path, *, begin: bool, folder: Path | None = None) -> Place:
    """`find_place`, with `begin` after starting the local AWS where none runs. Raises `UserError` where none does.

    The caller of `begin` holds the lock of the folder.
    """
    base = folder or sandbox_dir()
    server = find(base)
    if server is None:
        if not begin:
            raise not_running()
        server = start(base)
        _forget_others(base, server.run)
    return _place(root, base, server)


def _place(root: Path, base: Path, server: Server) -> Place:
    own = base / RUNS / server.run
    project = sandbox_project(root, own / "project", Path(sys.prefix))
    return Place(base, server, project, own / "engine")


def _forget_others(base: Path, run: str) -> None:
    """Remove what earlier runs left: the AWS that it describes is gone."""
    for folder in (base / RUNS).glob("*"):
        if folder.name != run and folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
