"""What a provider does with a resource, over the sandbox's AWS: the same code under the engine and without it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from infra.errors import one_line
from infra.sandbox.aws import Aws
from infra.sandbox.catalogue import kind_of
from infra.sandbox.kind import Inputs, Kind, Outputs
from sizing.errors import UserError

_IMAGES = "/aws/service/deeplearning/ami/"
"""Under which AWS publishes its Deep Learning images; moto has none of them, and nobody but AWS may write one."""


class RefusedError(UserError):
    """AWS (moto) would not do what was asked, or boto3 found a parameter that AWS does not take."""


@dataclass(frozen=True, slots=True)
class Change:
    """How a resource's inputs differ: which were changed, and which of those replace it."""

    changed: tuple[str, ...]
    replaces: tuple[str, ...]
    delete_first: bool


class SandboxProvider:
    """create, read, diff, update and delete of every type in `infra.sandbox.catalogue`."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        self.stand_ins: dict[str, str] = {}
        """What moto lacks and something of its own stood in for, by name."""

    def check(self, type_: str, name: str, inputs: Inputs, before: Inputs | None = None, digits: str = "") -> Outputs:
        """The inputs with the name that AWS is to know the resource by, the earlier one where it has one.

        `digits`: seven hexadecimal digits of the automatic name; random where none are given.
        Raises `UserError` for an unknown type and a name that would be too long.
        """
        kind, found = kind_of(type_), dict(inputs)
        if kind.names and not found.get(kind.names):
            earlier = (before or {}).get(kind.names)
            made = f"{name}-{digits or secrets.token_hex(4)[:7]}"
            found[kind.names] = earlier or made
            if len(found[kind.names]) > kind.name_limit:
                raise RefusedError(
                    f"{type_} {name}: its name in AWS, {found[kind.names]}, is longer than {kind.name_limit} characters"
                )
        return found

    def diff(self, type_: str, name: str, old: Inputs, new: Inputs, ignored: Sequence[str] = ()) -> Change:
        """What changed between two sets of inputs, without the keys in `ignored`, and what AWS can only replace."""
        kind = kind_of(type_)
        changed = tuple(sorted(k for k in {*old, *new} if old.get(k) != new.get(k) and k not in ignored))
        forced = kind.replaced(old, new)
        replaces = tuple(k for k in changed if k not in kind.in_place or k in forced)
        return Change(changed, replaces, kind.delete_first or _chosen_name(kind, name, old, new))

    def settled(self, type_: str, old: Inputs, new: Inputs, outputs: Mapping[str, Any]) -> Outputs:
        """Outputs that are known before a change in place is made: those of today that the change leaves alone."""
        kind = kind_of(type_)
        kept = {k: v for k, v in outputs.items() if k not in old and k not in kind.moving}
        return {**kept, **new}

    def create(
        self, type_: str, name: str, inputs: Inputs, made: Callable[[str], None] = lambda _: None
    ) -> tuple[str, Outputs]:
        """Make it; returns its id and its outputs, which repeat the inputs. `made` is told the id at once.

        Raises `RefusedError`.
        """
        kind = kind_of(type_)
        with asking(type_, name, "to make it"):
            id_ = kind.create(self.aws, inputs)
        made(id_)
        found = self.read(type_, name, id_, inputs)
        if found is None:
            raise RefusedError(f"{type_} {name}: {id_} was made, and AWS does not know it")
        return id_, found

    def read(self, type_: str, name: str, id_: str, inputs: Inputs) -> Outputs | None:
        """Its outputs as AWS says; None where it is gone. Raises `RefusedError` where AWS cannot say."""
        with asking(type_, name, "to read it"):
            found = kind_of(type_).read(self.aws, id_, inputs)
        return None if found is None else {**inputs, **found}

    def update(self, type_: str, name: str, id_: str, old: Inputs, new: Inputs) -> Outputs:
        """Change it in place; returns its outputs. Raises `RefusedError` for a change that only a replacement makes."""
        kind, change = kind_of(type_), self.diff(type_, name, old, new)
        if change.replaces or kind.update is None:
            raise RefusedError(f"{type_} {name}: {', '.join(change.changed)} cannot be changed; it must be replaced")
        with asking(type_, name, "to change it"):
            kind.update(self.aws, id_, old, new)
        found = self.read(type_, name, id_, new)
        if found is None:
            raise RefusedError(f"{type_} {name}: {id_} is gone")
        return found

    def delete(self, type_: str, name: str, id_: str, inputs: Inputs) -> None:
        """Remove it; that it is gone already is as good. Raises `RefusedError`."""
        with asking(type_, name, "to remove it"):
            kind_of(type_).delete(self.aws, id_, inputs)

    def invoke(self, function: str, args: Mapping[str, Any]) -> Outputs:
        """What a program asks of AWS itself. Raises `UserError` for a function that the sandbox does not know."""
        if function == "aws:index/getCallerIdentity:getCallerIdentity":
            with asking("sts", "", "who is calling"):
                found = self.aws.client("sts").get_caller_identity()
            return {
                "accountId": found["Account"],
                "arn": found["Arn"],
                "userId": found["UserId"],
                "id": found["Account"],
            }
        if function == "aws:ssm/getParameter:getParameter":
            return self._parameter(str(args["name"]))
        if function == "aws:ec2/getVpc:getVpc":
            id_ = str(args["id"])
            with asking("aws:ec2/vpc:Vpc", id_, "to read it"):
                vpc = self.aws.client("ec2").describe_vpcs(VpcIds=[id_])["Vpcs"][0]
            return {"id": id_, "cidrBlock": vpc["CidrBlock"]}
        raise UserError(f"the sandbox has no answer for the function {function}; docs/sandbox.md says how to add one")

    def _parameter(self, name: str) -> Outputs:
        """A parameter of Systems Manager; for an image that AWS publishes there and moto lacks, one that moto has."""
        if not name.startswith(_IMAGES):
            with asking("the parameter", name, "to read it"):
                found = self.aws.client("ssm").get_parameter(Name=name)["Parameter"]
            return {"id": name, "name": name, "value": found["Value"], "type": found["Type"], "arn": found["ARN"]}
        with asking("the image", name, "to find it"):
            images = self.aws.client("ec2").describe_images(Filters=[{"Name": "name", "Values": ["Ubuntu*DLAMI*"]}])
        if not images["Images"]:
            raise RefusedError(f"moto has neither {name} nor another Deep Learning image")
        image = max(images["Images"], key=lambda i: (i["CreationDate"], i["ImageId"]))
        self.stand_ins[name] = f"{image['ImageId']} ({image['Name'].strip()})"
        return {"id": name, "name": name, "value": image["ImageId"], "type": "String"}


def _chosen_name(kind: Kind, name: str, old: Inputs, new: Inputs) -> bool:
    """Whether a resource keeps a name that was not made for it from the logical one."""
    given = str(new.get(kind.names) or "")
    kept = bool(given) and given == old.get(kind.names)
    return kept and re.fullmatch(f"{re.escape(name)}-[0-9a-f]{{7}}", given) is None


@contextmanager
def asking(type_: str, name: str, what: str) -> Iterator[None]:
    """Turn what boto3 raises into one line, a `RefusedError`, that names the resource and what was asked."""
    try:
        yield
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (500, 501):
            raise RefusedError(
                f"{type_} {name}: moto has no {error.operation_name}, or failed at it: {one_line(error, 400)}"
            ) from error
        raise RefusedError(f"{type_} {name}: AWS refuses {what}: {one_line(error, 400)}") from error
    except ResponseParserError as error:  # moto's own page for what it does not have
        raise RefusedError(f"{type_} {name}: {what}: moto lacks a call that this needs, or failed at it") from error
    except BotoCoreError as error:
        raise RefusedError(f"{type_} {name}: {what}: {one_line(error, 400)}") from error
