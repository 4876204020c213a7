"""A fine-tuned model as it was handed over: which folder a host serves, whether it is whole, what it was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.deployment.places import Place
from model_runtime.manifest import NAME
from model_runtime.training.finish import FOLDER, MODEL, RECORD
from sizing.errors import UserError
from sizing.models.facts import ModelFacts
from sizing.models.read import FAMILIES, facts_from_config

CONFIG = "config.json"
_PLACES = ("", f"{MODEL}/", f"{FOLDER}/{MODEL}/")
"""Where the folder that a host serves lies below what a person may name: itself, the artifact, the run."""

_ABOVE = "../"


@dataclass(frozen=True, slots=True)
class Artifact:
    """`below`: the folder that a host serves, below the place that was named, without a slash at its end."""

    below: str
    manifest_sha256: str
    files: int
    total_bytes: int
    checked: str
    """every byte, sizes, or nothing"""
    base_model: str = ""
    method: str = ""
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return {
            "files": self.files or None,
            "bytes": self.total_bytes or None,
            "checked": self.checked,
            "base_model": self.base_model or None,
            "method": self.method or None,
        }


def examine(place: Place, model: ModelFacts, stated_sha256: str, *, sizes_only: bool) -> Artifact:
    """The artifact at `place`, whole and of `model`.

    Raises `UserError` for one that is missing, incomplete or damaged, has another manifest than the one stated, or was
    made from another model; `UnreachableError` where S3 cannot be asked.
    """
    below = _served(place)
    found = place.verify(below, sizes_only=sizes_only)
    if not found.whole:
        more = f" and {len(found.problems) - 1} more" if len(found.problems) > 1 else ""
        raise UserError(f"{found.location} is not whole: {found.problems[0]}{more}; hand it over again")
    if stated_sha256 and found.manifest_sha256 != stated_sha256:
        raise UserError(
            f"the manifest of {found.location} has the SHA-256 {found.manifest_sha256}, not the one given; "
            "it is another artifact"
        )
    record = _json(place, _beside(below), RECORD)
    notes = _compared(place, below, record, model)
    base = record.get("base", {}) if isinstance(record.get("base"), Mapping) else {}
    return Artifact(
        below.rstrip("/"), found.manifest_sha256, found.files, found.total_bytes,
        "sizes" if sizes_only else "every byte", str(base.get("model", "")), str(record.get("method", "")), notes,
    )  # fmt: skip


def _served(place: Place) -> str:
    """Below what a person named: the folder with a model's config.json, which a host fetches and loads."""
    for below in _PLACES:
        if place.read(below + CONFIG) is not None:
            if place.read(below + NAME) is None:
                raise UserError(
                    f"{place.where(below)} has no {NAME}, which is written last: it is incomplete, or no artifact of "
                    "`berth finetune`"
                )
            return below
    if place.read("adapter_config.json") is not None:
        raise UserError(f"{place.where()} holds an adapter alone; name the artifact that has it merged ({MODEL}/)")
    raise UserError(f"{place.where()} holds no model: there is no {CONFIG} in it, in {MODEL}/ or in {FOLDER}/{MODEL}/")


def _beside(below: str) -> str:
    """The artifact's folder, as seen from the place: its record stands beside the model's folder."""
    return below.removesuffix(f"{MODEL}/") if below else _ABOVE


def _json(place: Place, below: str, name: str) -> dict[str, Any]:
    """A JSON object of the artifact, empty where there is none: a model folder may stand alone."""
    if below == _ABOVE:
        above = place.above(MODEL)
        text = above.read(name) if above is not None else None
    else:
        text = place.read(below + name)
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        raise UserError(f"{place.where(below + name)} is no JSON; hand the artifact over again") from None
    return found if isinstance(found, dict) else {}


def _compared(place: Place, below: str, record: Mapping[str, Any], model: ModelFacts) -> tuple[str, ...]:
    """Notes on what a caller should know. Raises `UserError` where the artifact is of another model."""
    said = record.get("base")
    base = str(said.get("model", "")) if isinstance(said, Mapping) else ""
    if base and base.lower() != model.name.lower():
        raise UserError(
            f"{place.where(below)} was made from {base}, and the stack's model is {model.name}; "
            "set `model` in the stack file first, since the machine was chosen for it"
        )
    config = _json(place, below, CONFIG)
    kind = str(config.get("model_type", ""))
    if kind != model.model_type:
        raise UserError(f"{place.where(below)} is of the type {kind or 'unknown'}; {model.name} is {model.model_type}")
    if kind in FAMILIES:
        _same_shape(place.where(below), config, model)
    notes = []
    prompt = record.get("prompt")
    if isinstance(prompt, str) and prompt not in ("", "{input}"):
        notes.append(f"it was trained with the prompt {json.dumps(prompt)}; callers send their input in it")
    if not base:
        notes.append("no training.json says which model it was made from; its shape is that of the stack's model")
    return tuple(notes)


def _same_shape(where: str, config: Mapping[str, Any], model: ModelFacts) -> None:
    try:
        facts = facts_from_config(dict(config), name=where)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    (width, layers), (wanted_width, wanted_layers) = (
        (f.hidden_size, sum(stack.layers for stack in f.stacks)) for f in (facts, model)
    )
    if (width, layers) != (wanted_width, wanted_layers):
        raise UserError(
            f"{where} has {layers} layers of width {width:,}, {model.name} has {wanted_layers} of {wanted_width:,}: "
            "it is another model"
        )
