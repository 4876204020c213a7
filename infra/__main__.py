"""What `pulumi up` runs: the stack's settings, then the program of its role."""

from __future__ import annotations

import sys

import pulumi
import pulumi_aws as aws
from pulumi.runtime.config import CONFIG

from infra.engine_config import settings_of_engine
from infra.programs import declare
from infra.resolve import resolve
from sizing.errors import UserError
from sizing.hardware.load import load_hardware
from sizing.models.resolve import resolve_model


def main() -> None:
    stack = pulumi.get_stack()
    region, settings = settings_of_engine(CONFIG.get(), stack)
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
