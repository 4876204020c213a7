"""From what a person types to `ModelFacts`: a catalogue name, a folder, or a name on the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, Literal, Protocol

from sizing.dtypes import DTYPES
from sizing.errors import UserError
from sizing.models.catalogue import Catalogue, load_catalogue, quoted
from sizing.models.facts import ModelFacts
from sizing.models.families import generic
from sizing.models.families.layout import Config
from sizing.models.licences import LICENCES
from sizing.models.places import CONFIG, Folder, Place, named, read_headers, read_json, shards
from sizing.models.read import FAMILIES, facts_from_config, layout_of
from sizing.models.reconcile import reconcile
from sizing.models.stored import Stored, main_dtype

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
SHARDS_READ_FROM_HUB = 16
"""Files; above, the index's total stands for the headers, each of which would cost two requests."""


class Hub(Protocol):
    """Whoever can reach the model hub; `berth.hub` has one."""

    def place(self, name: str) -> Place:
        """The files of `org/name`. Raises `UserError` when the hub has no such model or does not answer."""

    def licence(self, name: str) -> str:
        """Licence id that the model card names, empty where it names none."""


def _quantization(config: Config) -> str:
    """How the checkpoint is quantized, in Berth's spelling where it has one; empty for one that is not."""
    found = config.get("quantization_config")
    if not isinstance(found, Mapping):
        return ""
    method = str(found.get("quant_method") or "")[:40]
    if method == "gptq":
        return "gptq-int8" if found.get("bits") == 8 else "gptq-int4"
    if method == "awq":
        return "awq-int4"
    if method == "bitsandbytes":
        return "nf4" if found.get("load_in_4bit") else "int8"
    if method == "compressed-tensors":
        return _compressed(found)
    return {"fbgemm_fp8": "fp8"}.get(method, method) or "unknown"


def _compressed(found: Mapping[str, Any]) -> str:
    """What llm-compressor did to the first group of weights, as the nearest format of the same bytes a weight."""
    groups = found.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    if not isinstance(weights, Mapping):
        return "compressed-tensors"
    kinds = {("int", 4): "gptq-int4", ("int", 8): "gptq-int8", ("float", 8): "fp8"}
    bits = weights.get("num_bits")
    name = kinds.get((str(weights.get("type")), bits if isinstance(bits, int) else 0))
    return name or "compressed-tensors"


def _weights(place: Place, config: Config, on_hub: bool) -> tuple[tuple[Stored, ...] | None, int | None]:
    """Tensors from the headers where they are read, and the bytes stored where known."""
    found = shards(place) if on_hub else None
    if found is not None and not _is_stranger(config):
        weight_map, total = found
        if len(set(weight_map.values())) > SHARDS_READ_FROM_HUB:
            return None, total
    tensors = read_headers(place)
    return tensors, None if tensors is None else sum(t.size_bytes for t in tensors)


def facts_at(place: Place, name: str, *, on_hub: bool = False, **rest: Any) -> ModelFacts:
    """The model whose files are at `place`: its config, and its safetensors headers where it has any.

    With headers, parameters and stored bytes are exact and the config is checked against them. Raises `UserError` in
    one line for whatever is missing, damaged or contradictory.
    """
    config = read_json(place, CONFIG)
    if config is None:
        if place.size("adapter_config.json") is not None:
            raise UserError(f"{place.where}: holds a LoRA adapter, not a model; name the model that it adapts")
        raise UserError(f"{place.where}: has no {CONFIG}; give a model's folder, as `save_pretrained` writes it")
    where = named(place, CONFIG)
    quantized = _quantization(config)
    stored, stored_bytes = _weights(place, config, on_hub)
    try:
        if stored is not None and not quantized and _is_stranger(config):
            return _stranger(config, stored, name, stored_bytes, **rest)
        if quantized and _is_stranger(config):
            raise UserError(
                f"model type '{config['model_type']}' is none of Berth's families, and packed weights ({quantized}) do"
                " not tell a model's shape; name the model that was quantized"
            )
        facts = facts_from_config(config, name=name, stored_bytes=stored_bytes, **rest)
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix('config.json').lstrip(': ')}") from error
    if quantized:
        known = "" if _dtype(quantized) != "unknown" else ", which Berth has no figures for: bf16 is taken instead"
        note = f"the checkpoint is quantized ({quantized}){known}; parameters are those its config describes"
        return replace(facts, published_dtype=_dtype(quantized), notes=(*facts.notes, note))
    if stored is None:
        note = f"no safetensors header read: parameters are those {CONFIG} describes"
        return facts if stored_bytes is not None else replace(facts, notes=(*facts.notes, note))
    return _measured(facts, config, stored, place.where)


def _is_stranger(config: Config) -> bool:
    return isinstance(config.get("model_type"), str) and config["model_type"] not in FAMILIES


def _stranger(
    config: Config, stored: tuple[Stored, ...], name: str, stored_bytes: int | None, **rest: Any
) -> ModelFacts:
    """A model of no known family: the header's weights, and a plain decoder's cache."""
    layout = generic.layout(config, stored)
    return ModelFacts(
        name=name,
        family=str(config["model_type"]),
        model_type=str(config["model_type"]),
        architecture=layout.architecture,
        params=layout.params,
        tensors=layout.tensors,
        vocab_size=layout.vocab_size,
        context_window=layout.context_window,
        published_dtype=_dtype(main_dtype(stored)),
        tied_embeddings=layout.tied_embeddings,
        decoder=layout.decoder,
        notes=layout.notes,
        stored_bytes=stored_bytes,
        **rest,
    )


def _dtype(name: str) -> str:
    return name if name in DTYPES else "unknown"


def _measured(facts: ModelFacts, config: Config, stored: tuple[Stored, ...], where: str) -> ModelFacts:
    """`facts` with what the headers say in place of what the config promises."""
    layout = layout_of(config)
    tensors = reconcile(config, layout, stored, where)
    params = sum(t.numel for t in tensors)
    notes = facts.notes
    if params != layout.params:
        difference = params - layout.params
        notes = (
            *notes,
            f"the files hold {abs(difference):,} parameters {'more' if difference > 0 else 'fewer'} than the class that"
            f" {CONFIG} names, in its heads",
        )
    return replace(facts, params=params, tensors=tensors, published_dtype=_dtype(main_dtype(stored)), notes=notes)


def _is_path(text: str) -> bool:
    """Written as a path: `./x`, `/x`, `~/x`, `x/`, or more parts than a hub name has."""
    return text.startswith((".", "/", "~")) or text.endswith(("/", os.sep)) or text.count("/") > 1


def _there(path: Path) -> Literal["file", "folder", ""]:
    """What stands at `path`; empty for nothing, for what may not be looked at, and for what is no path at all."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return ""
    return "folder" if S_ISDIR(mode) else "file" if S_ISREG(mode) else ""


def _folder(text: str) -> ModelFacts:
    try:
        path = Path(text).expanduser()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{quoted(text)}: no such home folder") from error
    there = _there(path)
    if path.name == CONFIG and there == "file":
        path, there = path.parent, "folder"
    if there == "file":
        raise UserError(f"{text}: is a file; give the folder that holds it and its {CONFIG}")
    if there != "folder":
        raise UserError(
            f"{quoted(text)}: no such folder; a model is a catalogue name (berth models), org/name, or a folder"
        )
    return facts_at(Folder(path), path.resolve().name, source=str(path))


def _unknown(text: str, catalogue: Catalogue, why: str) -> UserError:
    return UserError(
        f"unknown model {quoted(text)}: {why}; {catalogue.offer(text)}"
        f" (a folder with its {CONFIG} does as well: berth size ./folder)"
    )


def resolve_model(text: str, *, hub: Hub | None = None) -> ModelFacts:
    """The model that `text` means: a folder, a name or alias of the catalogue (any case), or `org/name` on the `hub`.

    Without `hub` nothing is asked of the network. Raises `UserError`, one line, for an unknown model (nearest names and
    the other ways offered), a closed one, and for files that are missing, damaged or contradict each other.
    """
    given = text.strip()
    if not given:
        raise UserError("no model given; name one of `berth models`, org/name, or a folder with its config.json")
    if _is_path(given) or _there(Path(given) / CONFIG) == "file":
        return _folder(given)
    catalogue = load_catalogue()
    facts = catalogue.find(given)
    if facts is not None:
        if not facts.deployable:
            raise UserError(f"{facts.name} cannot be deployed: {facts.licence_reason}")
        return facts
    if not HUB_NAME.fullmatch(given):
        raise _unknown(given, catalogue, "it is not in the catalogue")
    if hub is None:
        raise _unknown(given, catalogue, "it is not in the catalogue, and the hub was not asked (offline)")
    try:
        place = hub.place(given)
    except UserError as error:
        near = catalogue.nearest(given)
        raise UserError(f"{error}; in the catalogue: {', '.join(near)}" if near else str(error)) from error
    return _from_hub(given, place, hub)


def _from_hub(name: str, place: Place, hub: Hub) -> ModelFacts:
    facts = facts_at(place, name, on_hub=True, source=f"https://huggingface.co/{name}")
    written = hub.licence(name)
    known = LICENCES.get(written.lower())
    if known is None:
        return replace(facts, licence=written or "unknown")
    return replace(facts, licence=known[0], licence_verdict=known[1], licence_reason=known[2])
