"""`berth catalog`: which instance types and prices are in force, how old they are, and bringing them up to date."""

from __future__ import annotations

from typing import Annotated

import typer

from berth.output import JsonOption, console, print_json

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Instance types and prices: what is in force, how old it is, and bringing it up to date.",
)

FamilyOption = Annotated[str | None, typer.Option("--family", help="Only this instance family, e.g. g4dn.")]


@app.command()
def show(
    region: Annotated[str | None, typer.Option("--region", help="Only this region, e.g. eu-west-1.")] = None,
    family: FamilyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Which data are in force, from where, how old each group is, and what has no price."""
    from datetime import UTC, datetime

    from berth.show.catalog import in_force_document, of_family, show_in_force
    from sizing.hardware.load import load_hardware

    hardware = load_hardware()
    only = hardware.region(region) if region is not None else None
    document = in_force_document(hardware, datetime.now(UTC).date(), only, of_family(hardware, family))
    if json_output:
        print_json(document)
    else:
        show_in_force(console(), hardware, document)


@app.command()
def types(family: FamilyOption = None, json_output: JsonOption = False) -> None:
    """The instance types: vCPUs, RAM, accelerators and what they can."""
    from berth.show.catalog import of_family, show_types, type_document
    from sizing.hardware.load import load_hardware

    instances = of_family(load_hardware(), family)
    if json_output:
        print_json([type_document(instance) for instance in instances])
    else:
        show_types(console(), instances)


@app.command()
def prices(
    region: Annotated[str, typer.Option("--region", help="The region, e.g. eu-west-1.")] = "us-east-1",
    family: FamilyOption = None,
    json_output: JsonOption = False,
) -> None:
    """US dollars an hour of every type in a region, by way of paying."""
    from berth.show.catalog import of_family, price_document, show_prices
    from sizing.hardware.load import load_hardware

    hardware = load_hardware()
    name = hardware.region(region)
    rows = [price_document(hardware, name, instance) for instance in of_family(hardware, family)]
    if json_output:
        print_json(rows)
    else:
        show_prices(console(), name, rows)


@app.command()
def refresh(
    region: Annotated[
        list[str], typer.Option("--region", help="A region to bring up to date, e.g. us-east-1. May be given again.")
    ],
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="The AWS profile whose credentials to use; else the SDK's own search."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--without",
            help="Leave out sagemaker, savings, spot or services, e.g. for want of permission; its rates stay as they "
            "are. May be given again.",
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Bring types, offerings and prices up to date from AWS's own APIs: all of it or nothing. Costs nothing."""
    from datetime import UTC, datetime

    from berth.show.catalog import show_summary, summary_document
    from berth.show.progress import progress
    from infra.catalog_refresh.clients import connect
    from infra.catalog_refresh.refresh import refresh as run

    clients = connect(profile)
    with progress() as told:
        summary = run(region, clients, told, datetime.now(UTC), without=without or ())
    if json_output:
        print_json(summary_document(summary))
    else:
        show_summary(console(), summary)


@app.command()
def reset() -> None:
    """Remove the refreshed catalogue from this machine; the data that Berth ships serve again."""
    from infra.catalog_refresh import store
    from sizing.hardware import cache

    folder = cache.catalog_dir()
    removed = store.reset(folder)
    typer.echo(
        f"{'removed the refreshed catalogue' if removed else 'nothing to remove'} in {folder}; Berth's own data serve"
    )
