"""Writing a refreshed catalogue: aside, checked, and put in force in one step.

The layout is `sizing.hardware.cache`'s. A refresh that ends at any point before its last `os.replace`, killed
included, leaves the catalogue in force as it was; what it had written is swept away by the next refresh.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from infra import lock
from infra.catalog_refresh import KEPT
from infra.prices.table import COLUMNS as SERVICE_COLUMNS
from infra.prices.table import REFRESHED, refreshed_rows
from model_runtime.flock import take
from sizing.errors import UserError
from sizing.hardware import cache
from sizing.hardware.tables import COLUMNS

_STAGING = ".staging-"
_VERSION = re.compile(r"\d{8}T\d{6}Z-[a-z0-9_]+\Z")
Table = Sequence[Mapping[str, str]]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the cache for one writer; `UserError` where another has it or the folder cannot be written."""
    with _writing(folder):
        file = lock.opened(folder)
    with file:
        if not take(file):
            raise UserError("another `berth catalog` command is writing the catalogue; wait for it to end")
        yield


def publish(
    folder: Path,
    tables: Mapping[str, Table],
    regions: Collection[str],
    now: datetime,
    check: Callable[[Path], None],
) -> Path:
    """Write `tables` (by file name) as a version, `check` it, put it in force; the caller holds `locked`.

    `check` reads the folder as a user's next command will, and raises `UserError` to refuse it. Returns the version.
    """
    before = _in_force(folder)
    with _writing(folder):
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=folder))
        try:
            for name in cache.TABLES:
                _write_csv(staging / name, tables[name])
            # Beside the catalogue's tables, in the same version: one rename puts both in force.
            _write_csv(staging / REFRESHED, tables.get(REFRESHED, ()))
            files = {name: cache.digest(staging / name) for name in (*cache.TABLES, REFRESHED)}
            stamp = now.isoformat(timespec="seconds")
            cache.write_manifest(staging, cache.Manifest(stamp, tuple(sorted(regions)), files))
            check(staging)
            version = folder / f"{now:%Y%m%dT%H%M%SZ}-{staging.name.removeprefix(_STAGING)}"
            staging.rename(version)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        pointer = folder / f"{_STAGING}current"
        with pointer.open("w", encoding="utf-8") as file:
            file.write(version.name + "\n")
            file.flush()
            os.fsync(file.fileno())
        pointer.replace(folder / "current")
    # The version before stays for a command that is reading it at this moment.
    sweep(folder, keep={version.name, before})
    return version


def sweep(folder: Path, keep: set[str] | None = None) -> None:
    """Remove what ended refreshes left, and versions no longer in force; the caller holds `locked`."""
    keep = {_in_force(folder)} if keep is None else keep
    for path in folder.iterdir():
        if path.name in keep:
            continue
        if path.name.startswith(_STAGING) or _VERSION.match(path.name):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def read_services(version: Path | None) -> list[dict[str, str]]:
    """The rows of services' prices that a version holds; none where there is none. `UserError` where it is damaged."""
    return [] if version is None else [dict(row.cells) for row in refreshed_rows(version)]


def reset(folder: Path) -> bool:
    """Remove the refreshed catalogue, damaged or not; False where there was none. Berth's own data serve again."""
    if not folder.exists():
        return False
    with locked(folder), _writing(folder):
        there = (folder / "current").exists()
        (folder / "current").unlink(missing_ok=True)
        sweep(folder, keep=set())
    return there


def _in_force(folder: Path) -> str:
    try:
        version = cache.current_version(folder)
    except UserError:  # damaged: whatever it names need not be kept
        return ""
    return version.name if version else ""


def _write_csv(path: Path, rows: Table) -> None:
    columns = SERVICE_COLUMNS if path.name == REFRESHED else COLUMNS[path.name]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the catalogue cache {folder}: {error.strerror or error}; {KEPT} "
            f"({cache.ENVIRONMENT_VARIABLE} names another folder)"
        ) from None
