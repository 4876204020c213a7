"""`berth new`: a stack file from a sizing choice."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from berth.output import JsonOption, print_json

app = typer.Typer(add_completion=False, rich_markup_mode=None)

ROLES = ("inference", "endpoint", "training", "shared")


@app.command(
    epilog="The stack's other settings keep their defaults; `berth settings` explains them all, and the file is yours "
    "to edit. `berth preview STACK` then shows what it creates and costs."
)
def new(
    stack: Annotated[str, typer.Argument(help="Name of the new stack, such as inference-dev.", show_default=False)],
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help=f"What it is: {', '.join(ROLES)}.")],
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="The model, by a name of `berth models`.")
    ] = None,
    region: Annotated[str, typer.Option("--region", metavar="REGION", help="AWS region.")] = "us-east-1",
    owner: Annotated[
        str | None, typer.Option("--owner", metavar="NAME", help="Who answers for it. Default: your user name.")
    ] = None,
    instance_type: Annotated[
        str | None, typer.Option("--instance-type", metavar="TYPE", help="Instance type. Default: sizing's choice.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", metavar="DTYPE", help="auto, fp32, bf16, fp16, int8 …")
    ] = None,
    input_tokens: Annotated[
        int | None, typer.Option("--input-tokens", metavar="N", help="Longest input in tokens.")
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option("--output-tokens", metavar="N", help="Longest output in tokens.")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", metavar="N", help="Requests answered together.")] = None,
    requests_per_day: Annotated[
        int | None, typer.Option("--requests-per-day", metavar="N", help="Requests a day that must be carried.")
    ] = None,
    latency: Annotated[
        float | None, typer.Option("--latency", metavar="S", help="Seconds within which to answer.")
    ] = None,
    pay: Annotated[
        str,
        typer.Option(
            "--pay",
            metavar="WAY",
            help="on-demand, reserved-1y, reserved-3y, savings, spot, best; --capacity-block goes by itself.",
        ),
    ] = "on-demand",
    loading: Annotated[
        str | None,
        typer.Option(
            "--loading",
            metavar="WAY",
            help="Services: how weights are read, plain or mmap (less RAM; docs/loading.md).",
        ),
    ] = None,
    replicas: Annotated[int | None, typer.Option("--replicas", metavar="N", help="Hosts or instances.")] = None,
    nodes: Annotated[int | None, typer.Option("--nodes", metavar="N", help="Machines that train together.")] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", metavar="NAME", help="Training: full, lora or qlora. Default: sizing's choice."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="N|FILE", help="Training: examples, as a number or a local file whose lengths are read."
        ),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", metavar="E", help="Training: passes over the examples.")
    ] = None,
    global_batch: Annotated[
        int | None, typer.Option("--global-batch", metavar="B", help="Training: examples of a step, over all GPUs.")
    ] = None,
    capacity_block: Annotated[
        str | None,
        typer.Option("--capacity-block", metavar="ID", help="Training: the Capacity Block (cr-…) that was bought."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="PREFIX", help="Data set's prefix in the artifact bucket.")
    ] = None,
    artifact: Annotated[
        str | None, typer.Option("--artifact", metavar="PREFIX", help="Model's prefix in the artifact bucket.")
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option("--budget", metavar="USD", help="US dollars a month. Default: a fifth above the plan's cost."),
    ] = None,
    budget_per_run: Annotated[
        int | None, typer.Option("--budget-per-run", metavar="USD", help="US dollars that one training run may cost.")
    ] = None,
    time_to_live: Annotated[
        str | None, typer.Option("--ttl", metavar="TIME", help="How long it lives: 90m, 12h, 30d, 2w, off.")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option("--schedule", metavar="HOURS", help="Office hours: 'Mon-Fri 08:00-18:00 Europe/Berlin'."),
    ] = None,
    email: Annotated[str | None, typer.Option("--email", metavar="ADDRESS", help="Where alarms are sent.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the stack file if there is one.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Write a stack file: sizing chooses the machine, and its choice is recorded."""
    import getpass

    from infra.new_stack import new_stack, stack_reference_hint, write
    from infra.stack_files import project_root
    from sizing.errors import UserError

    given: dict[str, Any] = {
        "role": role, "owner": owner or getpass.getuser(), "model": model, "instance_type": instance_type,
        "dtype": dtype, "input_tokens": input_tokens, "output_tokens": output_tokens, "batch": batch,
        "replicas": replicas, "nodes": nodes, "dataset": dataset, "artifact": artifact, "budget_per_month": budget,
        "requests_per_day": requests_per_day, "latency_ms": None if latency is None else round(latency * 1000),
        "method": method, "epochs": epochs, "global_batch": global_batch, "capacity_block_id": capacity_block,
        "budget_per_run": budget_per_run, "time_to_live": time_to_live, "schedule": schedule, "alarm_email": email,
        "loading": loading,
    }  # fmt: skip
    given = {key: value for key, value in given.items() if value is not None}
    if role == "shared" and model:
        raise UserError("--model is for stacks with machines; a shared stack has none")
    root = project_root()
    made = new_stack(stack, root, region, given, pay=pay, data=data)
    write(made, replace=force)
    if json_output:
        print_json(
            {
                "stack": stack,
                "file": str(made.path),
                "settings": made.settings.model_dump(mode="json"),
                "notes": list(made.notes),
            }
        )
        return
    typer.echo(made.text)
    for note in made.notes:
        typer.echo(f"Note: {note}")
    if role != "shared" and (hint := stack_reference_hint(root)):
        typer.echo(f"First: {hint}")
    typer.echo(f"Written to {made.path}\nNext: berth preview {stack}")
