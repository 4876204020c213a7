"""What tells two plans of a stack apart: resources that come, go, change or are replaced, and by which inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from infra.plan import PlannedResource
from infra.resource_types import ENDPOINT_CONFIG, INSTANCE, TEMPLATE

Kind = Literal["adds", "removes", "changes", "replaces"]
REPLACED = frozenset({"aws:sagemaker/model:Model", ENDPOINT_CONFIG})
"""Types that AWS cannot change: the provider makes another one, under a name of its own, and removes the first."""


@dataclass(frozen=True, slots=True)
class Altered:
    """`inputs`: the paths of the inputs that differ, such as `primaryContainer.image`."""

    change: Kind
    name: str
    type: str
    inputs: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"change": self.change, "resource": self.name, "type": self.type, "inputs": list(self.inputs)}


def altered(before: Iterable[PlannedResource], after: Iterable[PlannedResource]) -> list[Altered]:
    """The differences by name, with what follows from them: who refers to a resource that is replaced, or to a launch
    template that gets another version, changes as well. Components, which only group, are left out."""
    old, new = ({r.urn: r for r in plan if r.custom} for plan in (before, after))
    found = {urn: Altered("removes", old[urn].name, old[urn].type) for urn in old.keys() - new.keys()}
    found |= {urn: Altered("adds", new[urn].name, new[urn].type) for urn in new.keys() - old.keys()}
    for urn in old.keys() & new.keys():
        if paths := tuple(sorted(_paths(old[urn].inputs, new[urn].inputs))):
            found[urn] = Altered(_kind(new[urn], paths), new[urn].name, new[urn].type, paths)
    _follow(found, new)
    return sorted(found.values(), key=lambda a: (a.name, a.type))


def _kind(resource: PlannedResource, paths: tuple[str, ...]) -> Kind:
    renewed = resource.type == INSTANCE and "userData" in paths and resource.inputs.get("userDataReplaceOnChange")
    return "replaces" if renewed or resource.type in REPLACED else "changes"


def _follow(found: dict[str, Altered], resources: Mapping[str, PlannedResource]) -> None:
    """Add who refers to what gets another id, name or version, until nobody more does."""
    waiting = list(found.values())
    while waiting:
        moved = waiting.pop()
        if moved.change != "replaces" and not (moved.change == "changes" and moved.type == TEMPLATE):
            continue
        for urn, resource in resources.items():
            if urn in found:
                continue
            paths = tuple(sorted(p for p, text in _texts(resource.inputs) if _refers(text, moved)))
            if paths:
                found[urn] = Altered(_kind(resource, paths), resource.name, resource.type, paths)
                waiting.append(found[urn])


def _refers(text: str, moved: Altered) -> bool:
    """In an offline plan an id is the logical name with -id, and a name that AWS makes up the logical name itself."""
    return f"{moved.name}-id" in text or (moved.type in REPLACED and text == moved.name)


def _texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _texts(below, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from _texts(below, f"{place}[{number}]")
    elif isinstance(value, str):
        yield place, value


def _paths(old: Any, new: Any, place: str = "") -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {*old, *new}:
            yield from _paths(old.get(key), new.get(key), f"{place}.{key}" if place else str(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _paths(one, other, f"{place}[{number}]")
    elif old != new:
        yield place
