"""What tells two plans of a stack apart: resources that come, go, change or are replaced, and by which inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from infra.plan import PlannedResource

Kind = Literal["adds", "removes", "changes", "replaces"]
REPLACED = frozenset({"aws:sagemaker/model:Model", "aws:sagemaker/endpointConfiguration:EndpointConfiguration"})
"""Types that AWS cannot change: the provider makes another one and removes the first."""
INSTANCE = "aws:ec2/instance:Instance"


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
    """The differences by name; components, which only group, are left out."""
    old, new = ({r.urn: r for r in plan if r.custom} for plan in (before, after))
    found = [Altered("removes", old[urn].name, old[urn].type) for urn in old.keys() - new.keys()]
    found += [Altered("adds", new[urn].name, new[urn].type) for urn in new.keys() - old.keys()]
    for urn in old.keys() & new.keys():
        paths = tuple(sorted(_paths(old[urn].inputs, new[urn].inputs)))
        if paths:
            found.append(Altered(_kind(new[urn], paths), new[urn].name, new[urn].type, paths))
    return sorted(found, key=lambda a: (a.name, a.type))


def _kind(resource: PlannedResource, paths: tuple[str, ...]) -> Kind:
    renewed = resource.type == INSTANCE and "userData" in paths and resource.inputs.get("userDataReplaceOnChange")
    return "replaces" if renewed or resource.type in REPLACED else "changes"


def _paths(old: Any, new: Any, place: str = "") -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {*old, *new}:
            yield from _paths(old.get(key), new.get(key), f"{place}.{key}" if place else str(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _paths(one, other, f"{place}[{number}]")
    elif old != new:
        yield place
