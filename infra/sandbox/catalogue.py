"""Every resource type that the sandbox knows, by the engine's name."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from infra.sandbox.kind import Kind
from sizing.errors import unknown

_MODULES = (
    "balancing",
    "ec2_groups",
    "ec2_machines",
    "ec2_network",
    "ecr",
    "iam",
    "kms",
    "notices",
    "route53",
    "s3",
    "sagemaker",
    "scaling",
    "watching",
)


@cache
def kinds() -> dict[str, Kind]:
    """The kinds by type."""
    found: dict[str, Kind] = {}
    for name in _MODULES:
        for kind in import_module(f"infra.sandbox.services.{name}").KINDS:
            found[kind.type] = kind
    return found


def kind_of(type_: str) -> Kind:
    """The kind of a type. Raises `UserError`, which names it, for one that the sandbox does not know."""
    try:
        return kinds()[type_]
    except KeyError:
        raise unknown(
            "resource type in the sandbox", type_, sorted(kinds()), "docs/sandbox.md says how to add one"
        ) from None
