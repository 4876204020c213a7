"""Which bucket a stack's bundle and model lie in, and a client for it: of an account, or of the sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.places import BUCKET_OUTPUT, artifact_prefix, bundle_prefix
from infra.settings import MachineSettings
from infra.stack_files import StackFile, read_stack
from infra.uploads.content import machine_settings
from sizing.errors import UserError

if TYPE_CHECKING:
    from infra.lifecycle.engine import Engine


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The artifact bucket of a stack, `file` the stack as it is recorded where it runs.

    In the sandbox that is a copy of the person's file: what is recorded of a trial stays out of theirs.
    """

    file: StackFile
    bucket: str
    client: Any
    sandbox: bool

    @property
    def settings(self) -> MachineSettings:
        return machine_settings(self.file)

    @property
    def bundle_uri(self) -> str:
        return f"s3://{self.bucket}/{bundle_prefix(self.settings, self.file.name)}"

    @property
    def model_uri(self) -> str:
        return f"s3://{self.bucket}/{artifact_prefix(self.settings)}"


def open_artifacts(
    name: str, root: Path, *, sandbox: bool, engine: Engine | None = None, client: Any = None
) -> Artifacts:
    """The artifact bucket of the stack `name`, as its shared stack says.

    `engine` knows what is up (by default Pulumi's, or the sandbox's), `client` is boto3's for S3. Raises `UserError`
    where the shared stack is not up, and where the sandbox does not run.
    """
    settings = machine_settings(read_stack(name, root))
    if engine is None:
        from infra.lifecycle.engine import engine_for  # noqa: PLC0415 (imports Pulumi)

        engine = engine_for(root, sandbox)
    shared = settings.shared_name
    bucket = engine.outputs(shared).get(BUCKET_OUTPUT)
    if not bucket:
        up = f"berth up {shared}{' --sandbox' if sandbox else ''}"
        raise UserError(f"stack {name} keeps its artifacts in the bucket of {shared}, which is not up; `{up}` first")
    file = read_stack(name, engine.project)
    if client is None:
        from infra.cloud import cloud_for  # noqa: PLC0415

        client = cloud_for(file.region, sandbox).client("s3")
    return Artifacts(file, str(bucket), client, sandbox)
