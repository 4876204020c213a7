"""The sandbox's provider as Pulumi's engine speaks to it: the package `aws`, over `infra.sandbox.provider`.

`infra.sandbox.project` writes the folder from which the engine starts it; the engine needs no schema of it, because the
programs use pulumi_aws's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pulumi.provider.experimental import provider as engine
from pulumi.provider.experimental.property_value import Computed, PropertyValue

from infra.plan import UNKNOWN
from infra.sandbox.aws import Aws
from infra.sandbox.catalogue import kind_of
from infra.sandbox.provider import SandboxProvider
from infra.sandbox.server import find, sandbox_dir
from infra.sandbox.variable import ENDPOINT
from sizing.errors import UserError

VERSION = "7.51.1"
"""The version of pulumi-aws whose resource types and names it follows."""


def plain(value: PropertyValue) -> Any:
    """A property as JSON; what is not known yet as the engine writes it. Secrets of a sandbox are none."""
    inner = value.value
    if isinstance(inner, Computed):
        return UNKNOWN
    if isinstance(inner, Mapping):
        return {k: plain(v) for k, v in inner.items() if v.value is not None}
    if isinstance(inner, list | tuple):
        return [plain(v) for v in inner]
    if isinstance(inner, float) and inner.is_integer():
        return int(inner)
    return inner


def plain_all(values: Mapping[str, PropertyValue]) -> dict[str, Any]:
    return {k: plain(v) for k, v in values.items() if v.value is not None and not k.startswith("__")}


def wrapped(value: Any) -> PropertyValue:
    """JSON as a property; the engine has one kind of number.

    What is not known yet travels as the text that stands for it: the SDK cannot write its own `Computed`.
    """
    if isinstance(value, Mapping):
        return PropertyValue({k: wrapped(v) for k, v in value.items()})
    if isinstance(value, list | tuple):
        return PropertyValue([wrapped(v) for v in value])
    if isinstance(value, int) and not isinstance(value, bool):
        return PropertyValue(float(value))
    return PropertyValue(value)


def wrapped_all(values: Mapping[str, Any]) -> dict[str, PropertyValue]:
    return {k: wrapped(v) for k, v in values.items()}


_INPUTS = "berthInputs"
"""Key of a state under which the provider keeps the inputs: its outputs hold more than was given."""


_KIND = engine.PropertyDiffKind
_DIFF_KINDS = {
    (True, True, False): _KIND.UPDATE,
    (True, True, True): _KIND.UPDATE_REPLACE,
    (False, True, False): _KIND.ADD,
    (False, True, True): _KIND.ADD_REPLACE,
    (True, False, False): _KIND.DELETE,
    (True, False, True): _KIND.DELETE_REPLACE,
}
"""How the engine names a difference: by whether the key was given before, is given after, and replaces."""


def _inputs_of(state: Mapping[str, PropertyValue]) -> dict[str, Any]:
    """The inputs that a state was made of; a state of another provider's has all of it taken for inputs."""
    found = plain_all(state)
    return dict(found.get(_INPUTS, found))


def _name(urn: str) -> str:
    return urn.rsplit("::", 1)[-1]


def _type(urn: str) -> str:
    """The type in a URN, without those of the components around it."""
    return urn.split("::")[2].rsplit("$", 1)[-1]


class EngineProvider(engine.Provider):
    """create, read, diff, update and delete for the engine. Errors are `UserError`s, whose text the engine shows."""

    def __init__(self, provider: SandboxProvider | None = None) -> None:
        super().__init__()
        self._provider = provider

    @property
    def provider(self) -> SandboxProvider:
        if self._provider is None:
            raise UserError("the provider is not configured yet")
        return self._provider

    async def configure(self, request: engine.ConfigureRequest) -> engine.ConfigureResponse:
        """Takes the region of the stack (`aws:region`), and the local AWS that runs."""
        if self._provider is None:
            region = plain_all(request.args).get("region") or "us-east-1"
            self._provider = SandboxProvider(Aws(_endpoint(), str(region)))
        return engine.ConfigureResponse(supports_preview=True)

    async def check_config(self, request: engine.CheckRequest) -> engine.CheckResponse:
        return engine.CheckResponse(inputs=request.new_inputs)

    async def diff_config(self, request: engine.DiffRequest) -> engine.DiffResponse:  # noqa: ARG002
        return engine.DiffResponse(changes=False)

    async def get_schema(self, request: engine.GetSchemaRequest) -> engine.GetSchemaResponse:  # noqa: ARG002
        return engine.GetSchemaResponse(schema=f'{{"name": "aws", "version": "{VERSION}"}}')

    async def check(self, request: engine.CheckRequest) -> engine.CheckResponse:
        digits = request.random_seed.hex()[:7] if request.random_seed else ""
        inputs = self.provider.check(
            _type(request.urn), request.name, plain_all(request.new_inputs), plain_all(request.old_inputs), digits
        )
        return engine.CheckResponse(inputs=wrapped_all(inputs))

    async def diff(self, request: engine.DiffRequest) -> engine.DiffResponse:
        type_, new, old = _type(request.urn), plain_all(request.new_inputs), _inputs_of(request.old_state)
        change = self.provider.diff(type_, _name(request.urn), old, new, request.ignore_changes)
        return engine.DiffResponse(
            changes=bool(change.changed),
            replaces=list(change.replaces),
            stables=sorted(set(plain_all(request.old_state)) - {*old, *kind_of(type_).moving, _INPUTS}),
            diffs=list(change.changed),
            delete_before_replace=change.delete_first,
            detailed_diff={
                key: engine.PropertyDiff(_DIFF_KINDS[key in old, key in new, key in change.replaces], input_diff=True)
                for key in change.changed
            },
        )

    async def create(self, request: engine.CreateRequest) -> engine.CreateResponse:
        inputs = plain_all(request.properties)
        if request.preview:
            return engine.CreateResponse(properties=wrapped_all(inputs))
        id_, outputs = self.provider.create(_type(request.urn), request.name, inputs)
        return engine.CreateResponse(resource_id=id_, properties=wrapped_all({**outputs, _INPUTS: inputs}))

    async def read(self, request: engine.ReadRequest) -> engine.ReadResponse:
        inputs = _inputs_of(request.properties) or plain_all(request.inputs)
        found = self.provider.read(_type(request.urn), request.name, request.resource_id, inputs)
        if found is None:  # without an id the engine takes it for gone
            return engine.ReadResponse()
        return engine.ReadResponse(
            resource_id=request.resource_id,
            properties=wrapped_all({**found, _INPUTS: inputs}),
            inputs=wrapped_all(inputs),
        )

    async def update(self, request: engine.UpdateRequest) -> engine.UpdateResponse:
        type_, old = _type(request.urn), _inputs_of(request.olds)
        new = {**plain_all(request.news), **{k: old[k] for k in request.ignore_changes if k in old}}
        if request.preview:
            outputs = self.provider.settled(type_, old, new, plain_all(request.olds))
        else:
            outputs = self.provider.update(type_, request.name, request.resource_id, old, new)
        return engine.UpdateResponse(properties=wrapped_all({**outputs, _INPUTS: new}))

    async def delete(self, request: engine.DeleteRequest) -> None:
        inputs = _inputs_of(request.properties)
        self.provider.delete(_type(request.urn), request.name, request.resource_id, inputs)

    async def invoke(self, request: engine.InvokeRequest) -> engine.InvokeResponse:
        found = self.provider.invoke(request.tok, plain_all(request.args))
        return engine.InvokeResponse(return_value=wrapped_all(found))


def _endpoint() -> str:
    if given := os.environ.get(ENDPOINT):
        return given
    if server := find(sandbox_dir()):
        return server.endpoint
    raise UserError("the sandbox's AWS does not run; `berth sandbox up --empty` starts it")
