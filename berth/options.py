"""Arguments and options that several commands have, so that each is called and explained alike everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

SANDBOX_HELP = "On the local AWS (moto): no account, no cost."

StackArgument = Annotated[
    str, typer.Argument(help="The stack: the NAME of stacks/Pulumi.NAME.yaml.", show_default=False)
]
SandboxOption = Annotated[bool, typer.Option("--sandbox", help=SANDBOX_HELP)]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask. Needed where nobody can answer, as in a script.")
]
"""Of a command that makes, moves or removes what may cost."""


def sandbox_flag(sandbox: bool) -> str:
    """How a suggested `berth` command goes on: with ` --sandbox` where the one that suggests it was given that."""
    return " --sandbox" if sandbox else ""
