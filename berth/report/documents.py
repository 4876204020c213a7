"""Reading what the commands printed: recognised by schema, held against it, and against each other."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from berth.report.gpus import gpu_of, same_gpu, short_gpu
from sizing.errors import UserError

KINDS: dict[str, str] = {
    "assess": "berth assess --json",
    "size": "berth size MODEL --json",
    "training": "berth size MODEL --for training --json",
    "memory": "berth memory MODEL --json",
    "preview": "berth preview STACK --json",
    "measurement": "berth verify FOLDER --report FILE",
    "evaluation": "berth evaluate MODEL --out FOLDER --json",
    "review": "berth review summary FILE --json",
    "run": "berth finetune SETTINGS (training.json of its artifact)",
    "metrics": "berth metrics STACK --json",
    "feedback": "berth feedback STACK --json",
}
"""What a report is made of, in the order in which it is told, and the command that makes it."""
_TOLD_BY: dict[str, set[str]] = {
    "assess": {"verdict", "reasons", "answers"},
    "size": {"model", "workload", "choice", "refused", "costs"},
    "training": {"model", "task", "plan", "by_method"},
    "memory": {"model", "for", "device", "host"},
    "preview": {"stack", "role", "resources", "bill"},
}
_FORMATS = {
    "berth-measurement": "measurement",
    "berth-review-summary": "review",
    "berth-evaluation": "evaluation",
    "berth-training": "run",
    "berth-metrics": "metrics",
    "berth-feedback": "feedback",
}


@dataclass(frozen=True, slots=True)
class Document:
    """One file, or what a stack file says: its kind (a key of `KINDS`), its name as the person gave it, its content."""

    kind: str
    path: str
    content: dict[str, Any]
    command: str = ""
    """The command that made it, where the content alone does not say; empty: see `commands.command_of`."""


@cache
def schema_of(kind: str) -> dict[str, Any]:
    """The JSON Schema that a document of `kind` keeps to."""
    if kind == "run":
        text = files("berth.report").joinpath("run.schema.json").read_text(encoding="utf-8")
        schema: dict[str, Any] = json.loads(text)
        return schema
    from berth.schemas import load

    printed_by = {
        "training": "size training",
        "review": "review summary",
        "measurement": "verify",
        "evaluation": "evaluate",
    }
    return load(printed_by.get(kind, kind))


def kind_of(content: Any) -> str | None:
    """Which command printed `content`, read from JSON; None where it is none of `KINDS`.

    A document with a `format` says so itself. The others are told by keys that no other has together.
    """
    if not isinstance(content, dict):
        return None
    given = content.get("format")
    if isinstance(given, str) and given.partition("/")[0] in _FORMATS:
        return _FORMATS[given.partition("/")[0]]
    return next((kind for kind, keys in _TOLD_BY.items() if keys <= set(content)), None)


def read(path: Path) -> Document:
    """One file, recognised and held against its schema. Raises `UserError` naming the file and what is wrong in it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}); give what a berth command printed with --json") from error
    return recognised(path, content)


def recognised(path: Path, content: Any) -> Document:
    """What `path` holds, held against its schema. Raises `UserError` naming the file and what is wrong in it."""
    kind = kind_of(content)
    if kind is None:
        raise UserError(
            f"{path} is the JSON of none of the commands that a report is made of: {'; '.join(KINDS.values())}"
        )
    _validate(path, kind, content)
    return Document(kind, str(path), content)


def _validate(path: Path, kind: str, content: Any) -> None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    wrong = best_match(Draft202012Validator(schema_of(kind)).iter_errors(content))
    if wrong is not None:
        message = wrong.message if len(wrong.message) <= 160 else f"{wrong.message[:157]}..."
        raise UserError(
            f"{path} looks like what `{KINDS[kind]}` writes but does not keep to its schema: {wrong.json_path}: "
            f"{message}; make it again with this version of Berth"
        )


def gather(
    paths: Iterable[Path], also_called: Collection[str] = (), standing: Iterable[Document] = ()
) -> dict[str, Document]:
    """The documents by kind. `also_called` are other names of the model, such as that of its fine-tuned folder.

    `standing` are documents that need no file, those of a stack; a file of the same kind goes before them.
    Raises `UserError` for two documents of one kind, and for any that contradict each other.
    """
    found: dict[str, Document] = {}
    for path in paths:
        document = read(path)
        other = found.get(document.kind)
        if other is not None:
            raise UserError(
                f"{other.path} and {document.path} both come from `{KINDS[document.kind]}`; a report is about one "
                "plan: give one of them"
            )
        found[document.kind] = document
    found = {document.kind: document for document in standing} | found
    if not found:
        raise UserError("a report needs a STACK or at least one --from FILE; " + "; ".join(KINDS.values()))
    wrong = contradictions(found, also_called)
    if wrong:
        raise UserError(
            f"the files are not about one plan: {'; '.join(wrong)}; make them anew for the same plan"
            " (--also-called NAME for a fine-tuned model's own name)"
        )
    return {kind: found[kind] for kind in KINDS if kind in found}


def contradictions(found: Mapping[str, Document], also_called: Collection[str] = ()) -> list[str]:
    """What the documents say differently about one thing: a sentence each, naming both files.

    Compared are the model (a folder's by its last name), the inference machine, its region and dtype, and the task.
    A GPU that was measured is compared with the one chosen; a measurement without a GPU says nothing about either and
    is only marked as such in the report.
    """
    same = {_plain("model", name) for name in also_called}
    facts = [
        fact
        for document in found.values()
        for fact in _facts(document)
        if not (fact[0] == "model" and _plain("model", fact[1]) in same)
    ]
    said: dict[str, tuple[str, str, str]] = {}
    wrong = []
    for what, value, path in facts:
        plain = _plain(what, value)
        if what not in said:
            said[what] = (value, plain, path)
        elif said[what][1] != plain and not (what == "GPU" and same_gpu(said[what][0], value)):
            wrong.append(f"{said[what][2]} says {what} {said[what][0]}, {path} says {value}")
    return wrong


def _plain(what: str, value: str) -> str:
    short = value.rstrip("/").rsplit("/", 1)[-1] if what == "model" else value
    return short.lower()


def _facts(document: Document) -> list[tuple[str, str, str]]:
    """(what, value, file) of what can be compared."""
    content, path = document.content, document.path
    found: list[tuple[str, Any]] = []
    if document.kind == "assess":
        found.append(("task", content["answers"]["task"]))
    elif document.kind == "size":
        found += [("model", content["model"]["name"]), ("task", content["workload"]["task"])]
        if choice := content["choice"]:
            found += [(key, choice[key]) for key in ("instance_type", "region", "dtype")]
            found.append(("GPU", (gpu_of(choice["instance_type"]) or choice["gpu"]) if choice["gpus"] else None))
    elif document.kind == "training":
        found.append(("model", content["model"]["name"]))
    elif document.kind == "memory":
        found.append(("model", content["model"]))
        if content["for"] == "inference":
            found.append(("dtype", content["setup"]["dtype"]))
            if content["instance"]:
                found.append(("instance_type", content["instance"]["instance_type"]))
    elif document.kind == "preview":
        settings = content["settings"]
        found += [("model", settings.get("model")), ("stack", content["stack"])]
        if content["role"] in ("inference", "endpoint"):
            found += [(key, settings.get(key)) for key in ("instance_type", "dtype")]
            found += [("region", content["region"]), ("GPU", gpu_of(settings.get("instance_type") or ""))]
    elif document.kind == "measurement":
        model, machine = content["model"], content["machine"]
        if model:
            found.append(("model", model["name"]))
        if machine and machine["gpus"]:
            gpu = machine["gpus"][0]
            found.append(("GPU", short_gpu(gpu["name"], gpu["memory_bytes"])))
            if model:
                found.append(("dtype", (content["settings"] or {}).get("quantize") or model["dtype"]))
        if stack := content.get("stack"):
            found += [("stack", stack["name"]), ("model", stack["model"])]
            found += [(key, stack[key]) for key in ("instance_type", "dtype")]
    elif document.kind == "run":
        found.append(("model", content["base"]["model"]))
    elif document.kind in ("metrics", "feedback"):
        found.append(("stack", content["stack"]))
    elif document.kind == "evaluation":
        found.append(("model", content["base"] or content["model"]))
    return [(what, str(value), path) for what, value in found if value not in (None, "")]
