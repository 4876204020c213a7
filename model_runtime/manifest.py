"""A folder's manifest: every file with its size and SHA-256, written when it is made, checked when it arrives."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from model_runtime.errors import ModelError

NAME = "manifest.json"
FORMAT = "berth-manifest/1"
_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: `path` relative to the folder with forward slashes, `sha256` in hex (empty: not known)."""

    path: str
    size_bytes: int
    sha256: str = ""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def entries_of(folder: Path, *, leave_out: Iterable[str] = (NAME,)) -> tuple[Entry, ...]:
    """Every regular file under `folder`, by path; those named in `leave_out` (relative paths) are not listed."""
    skipped = set(leave_out)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    named = ((p.relative_to(folder).as_posix(), p) for p in files)
    return tuple(Entry(name, p.stat().st_size, sha256_of(p)) for name, p in named if name not in skipped)


def write_manifest(folder: Path) -> tuple[Entry, ...]:
    """Write `folder/manifest.json` over all its files and return the entries."""
    entries = entries_of(folder)
    document = {
        "format": FORMAT,
        "files": [{"path": e.path, "size": e.size_bytes, "sha256": e.sha256} for e in entries],
    }
    draft = folder / f"{NAME}.tmp"
    draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draft.replace(folder / NAME)
    return entries


def parse_manifest(text: str, where: str) -> tuple[Entry, ...]:
    """The entries of a manifest's `text`. Raises `ModelError` for anything else, and for a path out of the folder."""
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise ModelError(f"{where}: format is {document['format']!r}; this Berth reads {FORMAT}")
        entries = tuple(Entry(str(f["path"]), int(f["size"]), str(f["sha256"])) for f in document["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{where} is no manifest ({type(error).__name__}: {error}); make the folder anew") from error
    for entry in entries:
        safe_path(entry.path, where)
    return entries


def safe_path(path: str, where: str) -> str:
    """`path` if it stays inside the folder it is relative to. Raises `ModelError` otherwise."""
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path:
        raise ModelError(f"{where}: the path {path!r} leads out of the folder; refused")
    return path


def check_folder(folder: Path) -> tuple[Entry, ...]:
    """Compare `folder` with its manifest, every byte. Raises `ModelError` naming the first file that differs."""
    where = folder / NAME
    if not where.is_file():
        raise ModelError(f"{folder} has no {NAME}; it was not made by berth bundle, or is incomplete")
    entries = parse_manifest(where.read_text(encoding="utf-8"), str(where))
    for entry in entries:
        path = folder / entry.path
        if not path.is_file():
            raise ModelError(f"{path} is missing, though {NAME} lists it; fetch the folder again")
        size = path.stat().st_size
        if size != entry.size_bytes:
            raise ModelError(f"{path} has {size:,} bytes, {NAME} says {entry.size_bytes:,}; fetch the folder again")
        if entry.sha256 and sha256_of(path) != entry.sha256:
            raise ModelError(f"{path} differs from the SHA-256 in {NAME}; fetch the folder again")
    return entries
