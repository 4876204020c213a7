"""The folder that DJL Serving (LMI), SageMaker and `berth serve` run: handler, settings, runtime, a manifest."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import model_runtime
from model_runtime.errors import ModelError
from model_runtime.fetch import wanted_files
from model_runtime.handler.settings import FILE, ServingSettings, render
from model_runtime.manifest import NAME, Entry, sha256_of, write_manifest

RUNTIME = (
    "__init__.py", "errors.py", "manifest.py", "fetch.py", "precision.py", "load.py", "parameters.py", "sampling.py",
    "rows.py", "generate.py", "progress.py", "hub.py", "flock.py", "handler", "feedback",
)  # fmt: skip
"""What of `model_runtime` runs on a machine that serves. It imports nothing else of Berth."""
WEIGHTS = "weights"
FEEDBACK = "feedback"
"""Inside a bundle: the model folder that takes feedback, for a server of its own beside the model's."""
FEEDBACK_PROPERTIES = """\
# Written by berth bundle: takes feedback beside the model. Needs no GPU.
engine=Python
option.entryPoint=model.py
option.rolling_batch=disable
minWorkers=1
maxWorkers=1
batch_size=16
max_batch_delay=5
"""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model folder that was written. `manifest_sha256` is what a stack's settings name to trust it."""

    folder: Path
    files: tuple[Entry, ...]
    manifest_sha256: str
    archive: Path | None = None

    @property
    def total_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.files)


def write_bundle(
    target: Path,
    settings: ServingSettings,
    *,
    weights: Path | None = None,
    feedback_journal: str = "",
    archive: bool = False,
) -> Bundle:
    """Write the model folder `target`; with `weights`, that model's files are copied into it.

    `feedback_journal`: where a host's container keeps feedback; the folder that takes it is then written too, as
    `feedback/` with a runtime of its own, under the one manifest. The server of the model takes no notice of it.

    An earlier bundle at `target` is replaced as a whole, anything else there is left and refused. `archive` writes
    `TARGET.tar.gz` too, the same bytes for the same files.
    """

    def fill(folder: Path) -> None:
        chosen = settings
        if weights is not None:
            _copy_weights(weights, folder / WEIGHTS)
            chosen = replace(settings, model=f"./{WEIGHTS}")
        (folder / FILE).write_text(render(chosen), encoding="utf-8")
        shutil.copyfile(_package() / "handler" / "model.py", folder / "model.py")
        if feedback_journal:
            (folder / FEEDBACK).mkdir()
            _fill_feedback(folder / FEEDBACK, {"option.journal_dir": feedback_journal})
            _copy_runtime(folder / FEEDBACK / "model_runtime")

    return _write(target, fill, archive)


def write_feedback_bundle(
    target: Path, *, feedback_uri: str = "", journal_dir: str = "", archive: bool = False
) -> Bundle:
    """Write the model folder that takes feedback. `feedback_uri`: the S3 prefix it is shipped to."""
    options = {"option.feedback_uri": feedback_uri, "option.journal_dir": journal_dir}
    return _write(target, lambda folder: _fill_feedback(folder, options), archive)


def _fill_feedback(folder: Path, options: Mapping[str, str]) -> None:
    for name, value in options.items():
        if "\n" in value or "\\" in value:
            raise ModelError(f"{name} is {value!r}; it must be one line without backslashes")
    lines = "".join(f"{name}={value}\n" for name, value in options.items() if value)
    (folder / FILE).write_text(FEEDBACK_PROPERTIES + lines, encoding="utf-8")
    shutil.copyfile(_package() / "feedback" / "model.py", folder / "model.py")


def _package() -> Path:
    return Path(model_runtime.__file__).parent


def _write(target: Path, fill: Callable[[Path], None], archive: bool) -> Bundle:
    if target.exists() and not (target / FILE).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise ModelError(f"{target} is there and is no model folder; give a folder that is new, empty or a bundle")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as place:
        draft = Path(place) / "new"
        draft.mkdir()
        fill(draft)
        _copy_runtime(draft / "model_runtime")
        files = write_manifest(draft)
        if target.exists():
            target.rename(Path(place) / "old")
        draft.rename(target)
    packed = write_archive(target) if archive else None
    return Bundle(target, files, sha256_of(target / NAME), packed)


def _copy_runtime(target: Path) -> None:
    target.mkdir()
    for name in RUNTIME:
        source = _package() / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target / name)


def _copy_weights(source: Path, target: Path) -> None:
    if not (source / "config.json").is_file():
        raise ModelError(
            f"{source} has no config.json, so it is no model; give a model's folder to include its weights"
        )
    paths = {p.relative_to(source).as_posix(): p for p in source.rglob("*") if p.is_file() and ".git" not in p.parts}
    for name in sorted(wanted_files(paths)):
        if name != NAME:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(paths[name], target / name)


def write_archive(folder: Path) -> Path:
    """`FOLDER.tar.gz` with the files at its top, as SageMaker wants a `model.tar.gz`."""
    packed = folder.with_name(f"{folder.name}.tar.gz")
    draft = packed.with_name(f"{packed.name}.tmp")

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        info.mtime, info.mode = 0, 0o644
        return info

    with (
        draft.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=1) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            tar.add(path, arcname=path.relative_to(folder).as_posix(), filter=plain)
    draft.replace(packed)
    return packed


def differs_from_installed(folder: Path) -> bool:
    """Whether a bundle carries other runtime code than what is running; False for a folder that carries none."""
    carried = folder / "model_runtime"
    if not carried.is_dir():
        return False
    for path in carried.rglob("*.py"):
        own = _package() / path.relative_to(carried)
        if not own.is_file() or own.read_bytes() != path.read_bytes():
            return True
    return False
