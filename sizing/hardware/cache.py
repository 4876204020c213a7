"""Where a refreshed catalogue is kept on this machine, and which one is in force.

Layout under the cache folder (`BERTH_CACHE_DIR`, or the platform's own for `berth`):

    catalog/current      one line: the name of the version in force
    catalog/<version>/   instances.csv, offerings.csv, prices.csv, manifest.json; never changed once `current` names it

`current` is replaced in one step, so a reader sees the old version or the new one and nothing between.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sizing.errors import UserError

FORMAT = 1
"""Version of the files' format; a cache of another format is refused."""
TABLES: tuple[str, ...] = ("instances.csv", "offerings.csv", "prices.csv")
ENVIRONMENT_VARIABLE = "BERTH_CACHE_DIR"
RESET_HINT = "; `berth catalog reset` removes the refreshed catalogue and Berth's own data serve again"
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]*\Z")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a refresh wrote: when (UTC, ISO 8601), for which regions, and the SHA-256 of every file."""

    refreshed_at: str
    regions: tuple[str, ...]
    files: dict[str, str]


def catalog_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder that holds refreshed catalogues; it need not exist."""
    if given := environ.get(ENVIRONMENT_VARIABLE):
        return Path(given) / "catalog"
    if sys.platform.startswith("linux"):  # platformdirs' own rule there; importing it takes longer than the catalogue
        base = environ.get("XDG_CACHE_HOME", "").strip()
        return (Path(base) if base else Path.home() / ".cache") / "berth" / "catalog"
    from platformdirs import user_cache_path

    return user_cache_path("berth", appauthor=False) / "catalog"


def current_version(folder: Path | None = None) -> Path | None:
    """The folder of the refreshed catalogue in force; None where there is none. `UserError` where it is damaged."""
    folder = catalog_dir() if folder is None else folder
    pointer = folder / "current"
    try:
        name = pointer.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise damaged(folder, f"{pointer.name} cannot be read ({error.__class__.__name__})") from None
    if not _VERSION.match(name):
        raise damaged(folder, f"{pointer.name} names no version")
    if not (folder / name).is_dir():
        raise damaged(folder, f"{pointer.name} names {name}, which is not there")
    return folder / name


def damaged(folder: Path, problem: str) -> UserError:
    """The one line for a refreshed catalogue that cannot be used."""
    return UserError(f"the refreshed catalogue in {folder} is damaged: {problem}{RESET_HINT}")


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_manifest(version: Path) -> Manifest:
    """The manifest of a version, its files checked against it: whole, and as the refresh wrote them."""
    path = version / "manifest.json"
    try:
        raw: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise damaged(version.parent, "manifest.json is missing") from None
    except OSError as error:
        raise damaged(version.parent, f"manifest.json cannot be read ({error.strerror})") from None
    except ValueError:
        raise damaged(version.parent, "manifest.json is not JSON") from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise damaged(version.parent, f"manifest.json is not of format {FORMAT}, which this Berth reads")
    refreshed_at, regions, files = raw.get("refreshed_at"), raw.get("regions"), raw.get("files")
    if not isinstance(refreshed_at, str) or not isinstance(regions, list) or not isinstance(files, dict):
        raise damaged(version.parent, "manifest.json lacks refreshed_at, regions or files")
    for name in TABLES:
        try:
            found = digest(version / name)
        except OSError:
            raise damaged(version.parent, f"{name} is missing") from None
        if found != files.get(name):
            raise damaged(version.parent, f"{name} is not as the refresh wrote it (cut off or changed)")
    return Manifest(refreshed_at, tuple(str(r) for r in regions), {str(k): str(v) for k, v in files.items()})


def write_manifest(version: Path, manifest: Manifest) -> None:
    """Write a version's manifest; the version is not in force yet, so nobody reads it half-written."""
    document = {
        "format": FORMAT,
        "refreshed_at": manifest.refreshed_at,
        "regions": list(manifest.regions),
        "files": manifest.files,
    }
    (version / "manifest.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
