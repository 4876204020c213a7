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

PurposeOption = Annotated[str, typer.Option("--for", metavar="PURPOSE", help="inference or training.")]

TestOption = Annotated[str, typer.Option("--test", help="A file for the test set, instead of a share.")]
FormOption = Annotated[str, typer.Option("--form", help="auto, seq2seq, causal, chat or classification.")]
ColumnOption = Annotated[
    list[str] | None, typer.Option("--column", help="NAME=COLUMN where a column has another name; may be repeated.")
]
"""The last three: of commands that read a data set."""


def sandbox_flag(sandbox: bool) -> str:
    """How a suggested `berth` command goes on: with ` --sandbox` where the one that suggests it was given that."""
    return " --sandbox" if sandbox else ""
