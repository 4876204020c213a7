"""A model as JSON, and filters over the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sizing.errors import unknown
from sizing.models.catalogue import ARCHITECTURES, VERDICTS, Catalogue, Entry
from sizing.models.facts import Architecture, LicenceVerdict, ModelFacts, Stack
from sizing.models.tasks import task_named


def one_of(kind: str, given: str, allowed: tuple[str, ...]) -> str:
    """The one of `allowed` that `given` is or begins (`business`, `encoder-d`). Raises `UserError` for any other."""
    key = given.strip().lower().replace("_", "-")
    if key in allowed:
        return key
    begun = [name for name in allowed if key and name.startswith(key)]
    if len(begun) == 1:
        return begun[0]
    raise unknown(kind, given, allowed)


@dataclass(frozen=True, slots=True)
class Filter:
    """What a model must be; None asks nothing. Names are checked when it is made."""

    task: str | None = None
    licence: str | None = None
    min_context: int | None = None
    """Tokens. A model whose context is not limited passes."""
    max_params: int | None = None
    architecture: str | None = None

    def __post_init__(self) -> None:
        if self.task is not None:
            object.__setattr__(self, "task", task_named(self.task).name)
        if self.licence is not None:
            object.__setattr__(self, "licence", one_of("licence", self.licence, VERDICTS))
        if self.architecture is not None:
            object.__setattr__(self, "architecture", one_of("architecture", self.architecture, ARCHITECTURES))

    def keeps(self, entry: Entry) -> bool:
        if self.task is not None and self.task not in entry.tasks:
            return False
        if self.licence is not None and entry.verdict != self.licence:
            return False
        context = entry.context_window
        if self.min_context is not None and context is not None and context < self.min_context:
            return False
        if self.max_params is not None and not (entry.deployable and entry.params <= self.max_params):
            return False
        return self.architecture is None or entry.architecture == self.architecture


def listed(catalogue: Catalogue, wanted: Filter) -> list[Entry]:
    """The entries that `wanted` keeps, smallest first, because one starts with the smallest that may do.

    A closed model publishes no size and stands last.
    """
    kept = [entry for entry in catalogue.entries.values() if wanted.keeps(entry)]
    return sorted(kept, key=lambda e: (not e.deployable, e.params, e.name.lower()))


def _row(
    name: str,
    family: str,
    architecture: Architecture,
    params: int,
    context: int | None,
    dtype: str,
    licence: str,
    verdict: LicenceVerdict | str,
    reason: str,
    tasks: tuple[str, ...],
    languages: str,
    deployable: bool,
    source: str,
    as_of: str,
) -> dict[str, Any]:
    return {
        "name": name,
        "family": family,
        "architecture": architecture,
        "params": params if deployable else None,
        "context_window": context,
        "published_dtype": dtype,
        "licence": licence,
        "licence_verdict": verdict,
        "licence_reason": reason,
        "tasks": list(tasks),
        "languages": languages,
        "deployable": deployable,
        "source": source,
        "as_of": as_of,
    }


def entry_json(entry: Entry) -> dict[str, Any]:
    """A line of the catalogue; `params` is null for a closed model."""
    return _row(
        entry.name,
        entry.family,
        entry.architecture,
        entry.params,
        entry.context_window,
        entry.published_dtype,
        entry.licence,
        entry.verdict,
        entry.licence_reason,
        entry.tasks,
        entry.languages,
        entry.deployable,
        entry.source,
        entry.as_of,
    )


def stack_json(stack: Stack) -> dict[str, Any]:
    """Layers, widths, heads and attention of a stack, by the field's names."""
    return {
        "num_hidden_layers": stack.layers,
        "hidden_size": stack.hidden_size,
        "num_attention_heads": stack.heads,
        "kv_heads": stack.kv_heads,
        "head_dim": stack.head_dim,
        "intermediate_size": stack.intermediate_size,
        "gated": stack.gated,
        "cross_attention": stack.cross_attention,
        "experts": stack.experts or None,
        "experts_per_token": stack.experts_per_token or None,
        "norm": stack.norm,
        "position": stack.position,
        "activation": stack.activation,
        "attention": [
            {
                "layers": a.layers,
                "kv_heads": a.kv_heads,
                "key_dim": a.key_dim,
                "value_dim": a.value_dim,
                "window": a.window,
            }
            for a in stack.attention
        ],
    }


def facts_json(facts: ModelFacts) -> dict[str, Any]:
    """A model in full, tensor by tensor."""
    return {
        **_row(
            facts.name,
            facts.family,
            facts.architecture,
            facts.params,
            facts.context_window,
            facts.published_dtype,
            facts.licence,
            facts.licence_verdict,
            facts.licence_reason,
            facts.tasks,
            facts.languages,
            facts.deployable,
            facts.source,
            facts.as_of,
        ),
        "model_type": facts.model_type,
        "active_params": facts.active_params if facts.deployable else None,
        "class_params": facts.class_params,
        "params_note": facts.params_note,
        "stored_bytes": facts.stored_bytes,
        "vocab_size": facts.vocab_size or None,
        "tied_embeddings": facts.tied_embeddings,
        "encoder": stack_json(facts.encoder) if facts.encoder else None,
        "decoder": stack_json(facts.decoder) if facts.decoder else None,
        "notes": list(facts.notes),
        "tensors": [
            {
                "name": t.name,
                "shape": list(t.shape),
                "count": t.count,
                "part": t.part,
                "kind": t.kind,
                "tied_to": t.tied_to or None,
            }
            for t in facts.tensors
        ],
    }
