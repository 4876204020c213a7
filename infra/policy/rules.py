"""All rules with their names and descriptions, and the run of all of them over a stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from infra.policy import cost, security
from infra.policy.subject import Subject, Violation

Rule = Callable[[Subject], Iterator[Violation]]


@dataclass(frozen=True, slots=True)
class Named:
    """A rule under the name that violations carry."""

    name: str
    description: str
    check: Rule


RULES: tuple[Named, ...] = (
    Named("over-budget", "The plan's month, and its run until the expiry, stay within the budgets.", cost.over_budget),
    Named("gpu-without-guard", "A GPU ends at an expiry, or a budget and an alarm watch it.", cost.gpu_guard),
    Named("machine-too-small", "The machine holds the model at the dtype and batch asked.", cost.holds_model),
    Named("not-offered", "The type is offered where and how it is to be bought.", cost.purchase_offered),
    Named("imdsv1", "Machines answer the instance metadata service's version 2 only.", security.metadata_version),
    Named("unencrypted-storage", "Disks, buckets, topics and logs are encrypted.", security.encrypted_storage),
    Named("open-ingress", "No port is open to the whole internet.", security.open_ingress),
    Named("wildcard-iam", "Roles name actions and resources.", security.wildcard_permissions),
    Named("public-bucket", "Buckets block public access.", security.public_buckets),
    Named("missing-tags", "Resources carry project, stack, owner and expiry.", security.tags),
)


def check(subject: Subject) -> list[Violation]:
    """What all rules find, mandatory violations first."""
    found = [violation for rule in RULES for violation in rule.check(subject)]
    return sorted(found, key=lambda v: (v.level != "mandatory", v.rule, v.resource))
