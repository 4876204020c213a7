"""Every input that the programs give is one that the AWS provider knows, at every depth, with what it requires.

Python's SDK passes nested dictionaries through as they are, so a key that is misspelt would surface at the first `up`.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pulumi
import pytest
from infra_projects import ENDPOINT, INFERENCE, STACKS, TRAINING, Project, committed
from pulumi._types import input_type_py_to_pulumi_names, is_input_type

from infra.plan import Plan, PlannedResource

FREE_FORM = {"tags", "dimensions", "environment", "tagsAll"}
DOCUMENTS = {"policy", "assumeRolePolicy"}
"""Taken as JSON text as well as by blocks."""
ARN = "arn:aws:acm:us-east-1:111122223333:certificate/x"
VARIANTS: dict[str, dict[str, Any]] = {
    "spot-group": {**INFERENCE, "purchase": "spot", "replicas": 2, "schedule": "Mon-Fri 08:00-18:00 UTC"},
    "public": {**INFERENCE, "callers": ["203.0.113.0/24"], "certificate_arn": ARN, "time_to_live": "30d"},
    "closed": {**INFERENCE, "egress": "endpoints", "purchase": "spot"},
    "existing": {**INFERENCE, "vpc_id": "vpc-0a1b", "subnet_ids": ["subnet-1"]},
    "captured": {**ENDPOINT, "capture_percent": 10, "max_replicas": 3, "time_to_live": "30d"},
    "two-nodes": {**TRAINING, "nodes": 2},
    "block": {**TRAINING, "purchase": "capacity-block", "capacity_block_id": "cr-0a1b"},
}


def args_class(resource: PlannedResource) -> Any:
    """`aws:ec2/instance:Instance` -> `pulumi_aws.ec2.InstanceArgs`; InitArgs where a block has taken that name."""
    _, path, name = resource.type.split(":")
    module = import_module(f"pulumi_aws.{path.split('/')[0]}")
    return getattr(module, f"{name}InitArgs", None) or getattr(module, f"{name}Args")


def input_classes(annotation: Any) -> list[Any]:
    """The provider's input classes anywhere in an annotation."""
    if isinstance(annotation, type) and is_input_type(annotation):
        return [annotation]
    return [found for part in typing.get_args(annotation) for found in input_classes(part)]


def annotations(cls: Any) -> dict[str, Any]:
    module = inspect.getmodule(cls)
    scope = {**vars(import_module("builtins")), **vars(module), "pulumi": pulumi}
    scope.update({k: v for k, v in vars(import_module(cls.__module__.rsplit(".", 1)[0])).items() if k.endswith("Args")})
    scope["_inputs"] = import_module(cls.__module__.rsplit(".", 1)[0] + "._inputs")
    return typing.get_type_hints(cls.__init__, scope)


def strange(cls: Any, given: Any, path: str) -> Iterator[str]:
    """Keys of `given` that `cls` does not have, and required ones that are missing."""
    names = {pulumi_name: python_name for python_name, pulumi_name in input_type_py_to_pulumi_names(cls).items()}
    hints = annotations(cls)
    parameters = inspect.signature(cls.__init__).parameters
    own = ("self", "__self__")
    required = {n for n, p in parameters.items() if p.default is inspect.Parameter.empty and n not in own}
    for key in given:
        if key not in names:
            yield f"{path}.{key} is no input of {cls.__name__}"
    missing = required - {names[k] for k in given if k in names}
    if missing:
        yield f"{path} lacks {', '.join(sorted(missing))}"
    for key, value in given.items():
        if key in FREE_FORM or key not in names:
            continue
        inner = input_classes(hints.get(names[key]))
        if not inner:
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                yield from strange(inner[0], item, f"{path}.{key}")
            elif key not in DOCUMENTS:
                yield f"{path}.{key} must be a block"


def problems(plan: Plan) -> list[str]:
    return [
        problem
        for resource in plan.resources
        if resource.type.startswith("aws:")
        for problem in strange(args_class(resource), resource.inputs, resource.name)
    ]


@pytest.mark.parametrize("name", STACKS)
def test_the_committed_stacks_give_the_provider_what_it_knows(name: str) -> None:
    assert problems(committed(name)) == []


@pytest.mark.parametrize("name", list(VARIANTS))
def test_every_variant_of_a_stack_does(project: Project, name: str) -> None:
    assert problems(project.plan(VARIANTS[name])) == []


def test_the_check_finds_a_misspelt_key_and_a_missing_one() -> None:
    machine = committed("inference-dev").of_type("aws:ec2/instance:Instance")[0]
    inputs = {**machine.inputs, "metadataOptions": {"httpToken": "required"}}
    assert list(strange(args_class(machine), inputs, "x")) == [
        "x.metadataOptions.httpToken is no input of InstanceMetadataOptionsArgs"
    ]
    schedule = committed("training").of_type("aws:scheduler/schedule:Schedule")[0]
    target = {k: v for k, v in schedule.inputs["target"].items() if k != "roleArn"}
    found = list(strange(args_class(schedule), {**schedule.inputs, "target": target}, "x"))
    assert found == ["x.target lacks role_arn"]
