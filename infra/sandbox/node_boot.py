"""The first start of a stand-in training node: its environment, and what it fetches from the sandbox's S3.

The environment is the one in the instance's own user data, so bucket, prefixes and manifests are those of the stack.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.errors import one_line
from model_runtime.errors import ModelError
from model_runtime.fetch import fetch_s3
from model_runtime.manifest import NAME
from model_runtime.training.bundle import SETTINGS
from model_runtime.training.settings import FinetuneSettings, settings_from

_ENVIRONMENT = re.compile(r"<<'BERTH_ENV'\n(.*?)\nBERTH_ENV", re.DOTALL)
_LOG_GROUP = re.compile(r'"log_group_name":\s*"([^"]+)"')
MOST_EPOCHS, MOST_MICRO_BATCH = 3.0, 8
"""What a CPU that stands in for GPUs is given at most."""


class SetUpError(Exception):
    """The node cannot start its run: what is missing or damaged, in one line."""


@dataclass(frozen=True, slots=True)
class Booted:
    """`environment`: as /etc/berth/env holds it. `settings`: the file that the job runs."""

    environment: Mapping[str, str]
    log_group: str
    bundle: Path
    output: Path
    settings: Path


def script_of(ec2: Any, instance: str) -> str:
    """An instance's user data as text. Raises `SetUpError`."""
    try:
        found = ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")
    except (ClientError, BotoCoreError) as error:
        raise SetUpError(f"{instance} has no user data that can be read: {error}") from error
    return base64.b64decode(found.get("UserData", {}).get("Value", "")).decode("utf-8", "replace")


def environment_of(script: str) -> tuple[dict[str, str], str]:
    """The environment file and the log group that a script sets up. Raises `SetUpError` where it is none of Berth's."""
    found = _ENVIRONMENT.search(script)
    if found is None:
        raise SetUpError("the user data sets up no environment of Berth's")
    values = dict(line.split("=", 1) for line in found[1].splitlines() if "=" in line)
    group = _LOG_GROUP.search(script)
    return values, group[1] if group else ""


def boot(folder: Path, environment: Mapping[str, str], log_group: str, s3: Any, say: Callable[[str], None]) -> Booted:
    """Fetch bundle, model and data set as `infra/host/common.sh` and `training.sh` do, and place the run in `folder`.

    Raises `SetUpError` for what is missing or differs from its manifest, or from the one that the stack names.
    """
    bucket = environment.get("BERTH_BUCKET", "")
    wanted = (
        ("bundle", "BERTH_BUNDLE", "BERTH_BUNDLE_SHA256"),
        ("model", "BERTH_ARTIFACT", "BERTH_ARTIFACT_SHA256"),
        ("dataset", "BERTH_DATASET", ""),
    )
    for place, key, digest in wanted:
        uri = f"s3://{bucket}/{environment.get(key, '')}"
        _fetch(uri, folder / place, environment.get(digest, ""), s3)
        say(f"{uri} is here, and as its manifest says")
    output = folder / "output"
    output.mkdir(exist_ok=True)
    return Booted(environment, log_group, folder / "bundle", output, _place(folder, output, say))


def _fetch(uri: str, target: Path, expected: str, s3: Any) -> None:
    try:
        got = fetch_s3(uri, target, client=s3, manifest_sha256=expected)
    except (ModelError, ClientError, BotoCoreError) as error:
        raise SetUpError(f"{uri}: {one_line(error)}") from error
    if not got.verified:
        raise SetUpError(f"{uri}: {NAME} is missing")


def _place(folder: Path, output: Path, say: Callable[[str], None]) -> Path:
    """The bundle's settings in the stand-in's own places, and cut for one process on a CPU. Returns their file."""
    given = folder / "bundle" / SETTINGS
    try:
        settings = settings_from(json.loads(given.read_text(encoding="utf-8")), SETTINGS)
    except (OSError, ValueError, ModelError) as error:
        raise SetUpError(f"the bundle's {SETTINGS} cannot be used: {error}") from error
    placed = cut_for_cpu(
        replace(settings, model=str(folder / "model"), data=str(folder / "dataset"), output=str(output))
    )
    changed = [
        f"{name} {getattr(settings, name)!r} -> {getattr(placed, name)!r}"
        for name in ("plan", "method", "precision", "processes", "micro_batch_size", "epochs", "max_input_tokens")
        if getattr(settings, name) != getattr(placed, name)
    ]
    say(f"no GPU here; the stand-in trains on the CPU: {', '.join(changed) or 'as the bundle says'}")
    target = folder / "settings.json"
    target.write_text(json.dumps(placed.to_json(), indent=2) + "\n", encoding="utf-8")
    return target


def cut_for_cpu(settings: FinetuneSettings) -> FinetuneSettings:
    """The run as one process on a CPU does it: without the plan for GPUs, in fp32, with small batches."""
    return replace(
        settings,
        plan="",
        method="lora" if settings.method == "qlora" else settings.method,
        precision="fp32",
        processes=1,
        micro_batch_size=min(settings.micro_batch_size, MOST_MICRO_BATCH),
        gradient_accumulation_steps=1,
        epochs=min(settings.epochs, MOST_EPOCHS),
        max_input_tokens=0,
        max_target_tokens=0,
        context_window=0,
        logging_steps=1,
        checkpoint_minutes=min(settings.checkpoint_minutes, 0.1),
        device="cpu",
        preflight=False,
        metrics="off",
        attention="sdpa",
    )
