"""What `pulumi up` runs: the stack's settings, then the program of its role."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws
from pulumi.runtime.config import CONFIG

from infra.programs import declare
from infra.resolve import resolve
from infra.settings import read_settings
from infra.stack_files import REGION_KEY, split_config
from sizing.errors import UserError
from sizing.hardware.load import load_hardware
from sizing.models.resolve import resolve_model


def config_of_engine(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's configuration, whose keys are those of the stack file; its lists come as JSON."""
    known = {key: value for key, value in raw.items() if key.startswith("berth:") or key == REGION_KEY}
    return {
        key: json.loads(value) if isinstance(value, str) and value.startswith("[") and value.endswith("]") else value
        for key, value in known.items()
    }


def main() -> None:
    stack = pulumi.get_stack()
    region, given = split_config(config_of_engine(CONFIG.get()), stack)
    settings = read_settings(given, stack)
    account = aws.get_caller_identity().account_id
    context = resolve(stack, region, settings, account, load_hardware(), resolve_model, strict=True)
    for warning in context.warnings:
        pulumi.warn(warning)
    for name, value in declare(context).items():
        pulumi.export(name, value)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        # The engine shows an error's last line; a person's mistake needs no traceback.
        pulumi.error(" ".join(str(error).splitlines()))
        sys.exit(1)
