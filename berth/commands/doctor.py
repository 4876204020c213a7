"""`berth doctor`: whether an `up` of a stack can succeed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from berth.options import StackArgument
from berth.output import JsonOption, print_json

if TYPE_CHECKING:
    from infra.doctor.finding import Finding, Surroundings

app = typer.Typer(add_completion=False, rich_markup_mode=None)

NOT_READY = 3
"""Exit code where a check fails."""


@app.command(epilog="Ends with exit code 3 where a check fails. Nothing is changed.")
def doctor(
    stack: StackArgument,
    json_output: JsonOption = False,
) -> None:
    """Check what an `up` needs: tools, credentials, region, quota, offering, image, artifacts; each with its fix."""
    from infra.doctor.checks import examine
    from infra.settings import MachineSettings
    from infra.stack_files import read_stack
    from sizing.hardware.load import load_hardware
    from sizing.models.resolve import resolve_model

    file = read_stack(stack)
    model = resolve_model(file.settings.model) if isinstance(file.settings, MachineSettings) else None
    findings = list(examine(file, _surroundings(file.region), load_hardware(), model))
    if json_output:
        print_json({"stack": stack, "region": file.region, "findings": [f.to_json() for f in findings]})
    else:
        _show(findings)
    if any(f.status == "failed" for f in findings):
        raise typer.Exit(NOT_READY)


def _surroundings(region: str) -> Surroundings:
    import os

    from infra.cloud import ASK_SECONDS, AccountCloud
    from infra.doctor.finding import Surroundings, run_command

    account = AccountCloud(region, read_timeout=ASK_SECONDS, retries={"max_attempts": 2})
    return Surroundings(account.client, run_command, os.environ)


def _show(findings: list[Finding]) -> None:
    from berth.output import console, table

    drawn = table("Check", "", "Found", "What to do", wrap=("Found", "What to do"))
    for finding in findings:
        drawn.add_row(finding.check, finding.status, finding.said, "" if finding.status == "ok" else finding.fix)
    console().print(drawn)
    failed = sum(f.status == "failed" for f in findings)
    typer.echo(f"\n{failed} of {len(findings)} checks fail." if failed else "\nNothing stands in the way.")
