"""What is known of a stack without being told: its plan and bill, the recorded choice, files that runs left."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from berth.report.documents import Document, kind_of, recognised
from sizing.errors import UserError

if TYPE_CHECKING:
    from infra.operations.clients import Client
    from infra.settings import ServiceSettings, Settings, TrainingSettings
    from infra.stack_files import StackFile

LARGEST_BYTES = 8 << 20
"""Of a file that is looked at: Berth's own documents are far smaller."""
_NOT_LOOKED_AT = ("feedback/", "requests/", "capture/", "async/", "async-failures/")


def folder_of(stack: str, root: Path) -> Path:
    """Where the files of a stack's report are kept: `reports/STACK/` in the project."""
    return root / "reports" / stack


def names_of(stack: str, settings: Settings) -> tuple[str, ...]:
    """Other names under which files may call the stack's model: the stack's own, and its artifact's."""
    from infra.places import artifact_prefix
    from infra.settings import MachineSettings

    if not isinstance(settings, MachineSettings):
        return (stack,)
    return (stack, artifact_prefix(settings))


def of_stack(name: str, root: Path) -> list[Document]:
    """The documents that a stack file alone gives: the preview with its bill, and sizing's numbers for its machine.

    Raises `UserError` for a stack that is unknown or wrong.
    """
    from infra.preview import preview_stack
    from infra.settings import ServiceSettings, TrainingSettings
    from infra.stack_files import read_stack

    file = read_stack(name, root)
    place = f"stacks/{file.path.name}"
    made = [Document("preview", place, _plain(preview_stack(name, root).to_json()), f"berth preview {name} --json")]
    if isinstance(file.settings, ServiceSettings):
        made += _serving(file, file.settings, place)
    elif isinstance(file.settings, TrainingSettings):
        made += _training(file, file.settings, place)
    return made


def _plain(document: Any) -> dict[str, Any]:
    """As a file would hold it."""
    plain: dict[str, Any] = json.loads(json.dumps(document))
    return plain


def _serving(file: StackFile, settings: ServiceSettings, place: str) -> list[Document]:
    """Sizing's document for the machine that is recorded; where sizing would choose another one, that is said of it."""
    from infra.recommend import workload_of
    from infra.settings import AUTO, EndpointSettings
    from sizing.choose import choose
    from sizing.choosing.document import document
    from sizing.choosing.wishes import Wishes
    from sizing.hardware.load import load_hardware
    from sizing.models.resolve import resolve_model

    hardware, model = load_hardware(), resolve_model(settings.model)
    pay = "on-demand" if isinstance(settings, EndpointSettings) else settings.purchase
    gpus = 1 if settings.instance_type == AUTO else max(1, hardware.instance(settings.instance_type).gpus)
    wishes = Wishes(dtype=settings.dtype, region=file.region, pay=pay, max_gpus=gpus, loading=settings.loading)
    free = choose(model, workload_of(settings), hardware, wishes)
    recorded = settings.instance_type
    if recorded == AUTO or (free.chosen is not None and free.chosen.instance.name == recorded):
        return [Document("size", place, _plain(document(free, hardware)))]
    only = replace(hardware, instances={recorded: hardware.instances[recorded]}, _offers={})
    held = choose(model, workload_of(settings), only, wishes)
    content = document(held, hardware)
    others = [r.to_json() for r in free.refused if r.instance_type != recorded]
    if free.chosen is not None:
        month = f"${free.chosen.usd_per_month:,.2f} a month"
        said = f"sizing would choose it now, for {month}; the stack records {recorded}"
        others.insert(0, {"instance_type": free.chosen.instance.name, "reason": said, "short_bytes": None})
    content["refused"] = [*[r.to_json() for r in held.refused], *others]
    return [Document("size", place, _plain(content), f"berth report {quote(file.name)} --format json")]


def _training(file: StackFile, settings: TrainingSettings, place: str) -> list[Document]:
    """Sizing's plan of the run; none where the number of examples is not known."""
    from infra.training_job import task_of, wishes_of
    from sizing.hardware.load import load_hardware
    from sizing.models.resolve import resolve_model
    from sizing.training_plan.document import document
    from sizing.training_plan.search import search

    if not settings.examples or settings.purchase == "capacity-block":
        return []
    hardware, model = load_hardware(), resolve_model(settings.model)
    found = search(model, task_of(settings, model), hardware, wishes_of(settings, file.region))
    command = f"berth report {quote(file.name)} --format json"
    return [Document("training", place, _plain(document(found, hardware)), command)]


def in_folder(folder: Path) -> tuple[list[Document], list[str]]:
    """The newest document of each kind in a folder and below it, and what was passed over, in words."""
    newest: dict[str, tuple[float, Document]] = {}
    notes = []
    for path in sorted(folder.rglob("*.json")) if folder.is_dir() else ():
        if not path.is_file() or path.stat().st_size > LARGEST_BYTES:
            continue
        try:
            content = _own(path.read_bytes())
            if content is None:
                continue
            document = recognised(path, content)
        except OSError as error:
            notes.append(f"passed over: {path} cannot be read: {error.strerror}")
            continue
        except UserError as error:
            notes.append(f"passed over: {error}")
            continue
        written = path.stat().st_mtime
        if document.kind in newest:
            older = path if written < newest[document.kind][0] else Path(newest[document.kind][1].path)
            notes.append(f"passed over, a newer one is there: {older}")
        if document.kind not in newest or written >= newest[document.kind][0]:
            newest[document.kind] = (written, document)
    return [document for _, document in newest.values()], notes


def _own(body: bytes) -> dict[str, Any] | None:
    """What a file says, where it is one of Berth's documents; other JSON in a run's folder is none of the report's."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content if kind_of(content) is not None else None


def fetch(file: StackFile, client: Client, folder: Path) -> list[Path]:
    """Bring Berth's documents below the stack's prefix of the artifact bucket into `folder`; returns those that came.

    Each is written under its own key, with the time that S3 says, so that the newest of a kind is known.
    """
    import os

    from infra.operations.clients import account_of, asking
    from infra.places import bucket_name, output_prefix
    from model_runtime.manifest import safe_path

    bucket = bucket_name("artifacts", account_of(client, file.region), file.region)
    prefix, s3 = f"{output_prefix(file.name)}/", client("s3")
    came = []
    with asking("s3:GetObject", file.region, f"the bucket {bucket} does not exist: bring up the shared stack first"):
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", ()):
                name = str(entry["Key"]).removeprefix(prefix)
                if not name.endswith(".json") or name.startswith(_NOT_LOOKED_AT) or entry["Size"] > LARGEST_BYTES:
                    continue
                body = s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
                if _own(body) is None:
                    continue
                path = folder / safe_path(name, f"s3://{bucket}/{prefix}")
                path.parent.mkdir(parents=True, exist_ok=True)
                draft = path.with_name(f".{path.name}.tmp")
                draft.write_bytes(body)
                moment = entry["LastModified"].timestamp()
                os.utime(draft, (moment, moment))
                draft.replace(path)
                came.append(path)
    return came
