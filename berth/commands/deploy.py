"""`berth deploy`: points a service at a fine-tuned model, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from berth.options import StackArgument
from berth.output import JsonOption, print_json

if TYPE_CHECKING:
    from pathlib import Path

    from infra.deployment.deploy import Deployment

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="Only the stack file is changed; `berth up STACK` then brings the model to the machines. Where the artifact "
    "cannot be reached from here, --manifest-sha256 is recorded as it is, and the hosts check every file against it."
)
def deploy(
    stack: StackArgument,
    artifact: Annotated[
        str,
        typer.Option(
            "--artifact",
            metavar="PREFIX",
            help="The fine-tuned model: a prefix of the artifact bucket, s3://BUCKET/PREFIX, or a local folder; '' goes"
            " back to the base model.",
        ),
    ],
    manifest_sha256: Annotated[
        str,
        typer.Option("--manifest-sha256", metavar="HEX", help="SHA-256 that its manifest.json must have."),
    ] = "",
    to: Annotated[
        str,
        typer.Option("--to", metavar="PREFIX", help="Of a local folder: its prefix in the bucket. Default: models/…"),
    ] = "",
    sizes_only: Annotated[
        bool, typer.Option("--sizes-only", help="Compare sizes with the manifest and read no contents.")
    ] = False,
    sandbox: Annotated[bool, typer.Option("--sandbox", help="In the local AWS that `berth sandbox` started.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Record without asking.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Point an inference or endpoint stack at a fine-tuned model, verified, and show what that changes."""
    from infra.deployment.deploy import deploy as plan_deployment
    from infra.deployment.places import reach_aws

    found = plan_deployment(
        stack,
        _root(sandbox),
        artifact,
        manifest_sha256=manifest_sha256,
        prefix=to,
        sizes_only=sizes_only,
        reach=reach_aws(sandbox),
    )
    if not json_output:
        _show(found)
    recorded = not found.same and (yes or (not json_output and _agreed()))
    if recorded:
        found.write()
    if json_output:
        print_json({**found.to_json(), "recorded": recorded})
    elif recorded:
        typer.echo(f"\nRecorded in {found.file.path}")
        typer.echo("\nNext\n" + "\n".join(f"  {step}" for step in found.next_steps) + f"\n\nUndo\n  {found.undo}")
    elif not found.same:
        typer.echo("\nNothing was recorded.")


def _root(sandbox: bool) -> Path:
    from infra.stack_files import project_root

    root = project_root()
    if not sandbox:
        return root
    from infra.lifecycle.place import open_place

    return open_place(root, begin=False).project


def _agreed() -> bool:
    from berth.show.lifecycle import agreed, may_ask

    may_ask(yes=False, json_output=False)
    return agreed("\nRecord it in the stack file?", yes=False)


def _show(found: Deployment) -> None:
    from berth.output import console, table
    from infra.bill.lines import cents

    out, artifact, settings = console(), found.artifact, found.recorded
    serves = settings["artifact"] or f"its base model, {found.after.settings.model}"
    out.print(f"{found.file.name} serves {serves}", soft_wrap=True)
    if settings["artifact_manifest_sha256"]:
        out.print(f"  manifest {settings['artifact_manifest_sha256']}", soft_wrap=True)
    if artifact is not None and artifact.files:
        made = f", {artifact.method} fine-tuning of {artifact.base_model}" if artifact.base_model else ""
        out.print(f"  {artifact.files} files, {artifact.total_bytes:,} bytes, {artifact.checked} compared{made}")
    for note in found.notes:
        out.print(f"Note: {note}", soft_wrap=True)
    if found.same:
        out.print("\nThe stack file says so already.")
        return
    drawn = table("The next preview", "Resource", "What changes in it", wrap=("Resource", "What changes in it"))
    for change in found.resources:
        inputs = dict.fromkeys(path.split(".")[0].split("[")[0] for path in change.inputs)
        drawn.add_row(change.change, change.name, ", ".join(inputs))
    out.print()
    out.print(drawn)
    lines = [f"  {c.line.resource}: {c.line.item}: {cents(c.per_month):+,.2f}" for c in found.lines]
    after = cents(found.bill_after.per_month)
    if lines:
        more = after - cents(found.bill_before.per_month)
        out.print(f"\nThe bill changes by {more:+,.2f} USD to {after:,.2f} USD a month:\n" + "\n".join(lines))
    else:
        out.print(f"\nThe bill stays as it is: {after:,.2f} USD a month.")
    for violation in found.refused:
        out.print(f"Policy {violation.rule} refuses the plan: {violation.message}", soft_wrap=True)
