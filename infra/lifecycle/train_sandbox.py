"""What the sandbox has in a run where AWS has machines: stand-in nodes, a schedule that fires, a tiny base model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.errors import is_absent
from infra.lifecycle.train_prepare import Prepared
from infra.sandbox.aws import Aws
from infra.sandbox.node import LIMITS, start_node
from infra.sandbox.node_schedule import start as start_schedule
from infra.sandbox.server import Server
from model_runtime.artifacts import upload
from model_runtime.manifest import NAME, write_manifest
from sizing.errors import UserError
from sizing.models.resolve import resolve_model

TINY = {"encoder-decoder": "t5", "decoder-only": "llama", "encoder-only": "bert"}
"""Which tiny model (`model_runtime.tiny`) stands in for a model of an architecture."""


class StandIns:
    """The nodes of one run of the local AWS: a folder each, beside the sandbox's own files."""

    def __init__(self, aws: Aws, folder: Path, limits: Mapping[str, float] = LIMITS) -> None:
        self.aws, self.folder, self.limits = aws, folder, limits

    def switch_on(self, outputs: Mapping[str, Any]) -> None:
        start_schedule(self.aws, self.folder)
        for instance in outputs.get("instances", []):
            start_node(self.aws, str(instance), self.node(str(instance)), self.limits)

    def node(self, instance: str) -> Path:
        return self.folder / instance


def stand_ins(aws: Aws, base: Path, server: Server) -> StandIns:
    """Those of the run `server` of the local AWS whose files lie in `base`."""
    return StandIns(aws, base / "nodes" / server.run)


def put_tiny(bucket: str, prefix: str, prepared: Prepared, s3: Any) -> str:
    """Put a tiny model of the same architecture where the base model is to lie, unless something lies there."""
    from botocore.exceptions import ClientError  # noqa: PLC0415 (a tenth of a second)

    from model_runtime.tiny import build  # noqa: PLC0415 (imports torch)

    try:
        s3.head_object(Bucket=bucket, Key=f"{prefix}/{NAME}")
    except ClientError as error:
        if not is_absent(error):
            raise UserError(f"s3://{bucket}/{prefix} cannot be read: {error}") from error
    else:
        return f"The base model is what lies in s3://{bucket}/{prefix}."
    from transformers.utils import logging  # noqa: PLC0415 (imports torch)

    logging.disable_progress_bar()
    kind = TINY[resolve_model(prepared.settings.model).architecture]
    with tempfile.TemporaryDirectory() as place:
        folder = build(kind, Path(place) / "model")
        write_manifest(folder)
        upload(folder, f"s3://{bucket}/{prefix}", client=s3)
    return f"A tiny {kind} with random weights stands in for {prepared.settings.model}, in s3://{bucket}/{prefix}."
