"""What the sandbox knows of a resource type: how it is made, read, changed, removed, and what AWS changes in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from infra.errors import is_absent
from infra.sandbox.aws import Aws

Inputs = Mapping[str, Any]
Outputs = dict[str, Any]
Found = Outputs | None


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource type. Inputs have the engine's names (camelCase).

    `create` returns the id; `read` what AWS says of it, None where it is gone; `update` takes the old and the new
    inputs. `in_place` are the inputs that AWS changes on a living resource: a change of any other one replaces it.
    """

    type: str
    create: Callable[[Aws, Inputs], str]
    read: Callable[[Aws, str, Inputs], Found]
    delete: Callable[[Aws, str, Inputs], None]
    update: Callable[[Aws, str, Inputs, Inputs], None] | None = None
    in_place: frozenset[str] = frozenset()
    replaced: Callable[[Inputs, Inputs], set[str]] = lambda _old, _new: set()
    """Of the inputs in `in_place`, those whose change replaces the resource all the same, by the old and new inputs."""
    moving: frozenset[str] = frozenset()
    """Outputs that a change in place may alter. The engine takes them for unknown until it is made."""
    names: str = ""
    """The input that the provider fills with the logical name and a suffix where none is given."""
    name_limit: int = 255
    delete_first: bool = False
    """On replacement the old one must go before its successor can be made: AWS allows one in its place.

    One with a name of a person's choice goes first in any case; an automatic name is made anew.
    """
    lacking: str = ""
    """What moto has nothing of: the resource is then recorded, not made, and said so."""
    omits: str = ""
    """What of it moto is not told, and why: said at every `up`."""
    note: str = ""
    """What remains of it for a while after its deletion, in AWS as here."""


def put(
    type_: str,
    create: Callable[[Aws, Inputs], str],
    read: Callable[[Aws, str, Inputs], Found],
    delete: Callable[[Aws, str, Inputs], None],
    in_place: Iterable[str],
    **more: Any,
) -> Kind:
    """A kind whose API has one `Put` call for both creating and changing."""

    def update(aws: Aws, _id: str, _old: Inputs, new: Inputs) -> None:
        create(aws, new)

    return Kind(type_, create, read, delete, update, frozenset(in_place), **more)


def lacking(type_: str, what: str, names: str, outputs: Callable[[Inputs], Outputs] = dict) -> Kind:
    """A kind that moto does not have. It gets its name as id, so that what refers to it can be made."""

    def create(_aws: Aws, inputs: Inputs) -> str:
        return str(inputs[names])

    def read(_aws: Aws, _id: str, inputs: Inputs) -> Found:
        return outputs(inputs)

    def delete(_aws: Aws, _id: str, _inputs: Inputs) -> None:
        return None

    return Kind(type_, create, read, delete, names=names, lacking=what)


def pascal(value: Any) -> Any:
    """Keys of boto3's parameters (`VpcId`) from the engine's (`vpcId`), at every depth; empty values are left out."""
    if isinstance(value, Mapping):
        return {key[:1].upper() + key[1:]: pascal(inner) for key, inner in value.items() if inner is not None}
    return [pascal(inner) for inner in value] if isinstance(value, list) else value


def take(inputs: Inputs, **parameters: str) -> dict[str, Any]:
    """boto3's parameters by name, each from the input named; inputs that are not given are left out."""
    return {name: inputs[key] for name, key in parameters.items() if inputs.get(key) is not None}


def pairs(tags: Mapping[str, str] | None, key: str = "Key", value: str = "Value") -> list[dict[str, str]]:
    """Tags as a list of pairs, as most services take them."""
    return [{key: name, value: text} for name, text in sorted((tags or {}).items())]


def changed_tags(old: Inputs, new: Inputs) -> tuple[dict[str, str], list[str]]:
    """Tags to set, and the keys of those to remove."""
    before, after = old.get("tags") or {}, new.get("tags") or {}
    return {k: v for k, v in after.items() if before.get(k) != v}, sorted(set(before) - set(after))


def or_gone(call: Callable[[], Found]) -> Found:
    """What `call` reads; None where AWS says that it does not exist. Every other error is raised."""
    try:
        return call()
    except ClientError as error:
        if is_absent(error):
            return None
        raise


def unless_gone(call: Callable[..., Any], **parameters: Any) -> None:
    """Remove something; that it is gone already is as good."""
    try:
        call(**parameters)
    except ClientError as error:
        if not is_absent(error):
            raise
