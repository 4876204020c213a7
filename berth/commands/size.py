"""`berth size`: which machine serves a model, why not the others, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from berth.output import JsonOption

if TYPE_CHECKING:
    from sizing.choose import Choice
    from sizing.choosing.wishes import Wishes
    from sizing.hardware.load import Hardware
    from sizing.models.facts import ModelFacts
    from sizing.workload import Workload

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_DTYPES = "auto, fp32, fp16, bf16, fp8, int8, nf4, nf4-dq, gptq-int4, gptq-int8, awq-int4"
_PAYS = "on-demand, reserved-1y, reserved-3y, savings-1y, savings-3y, savings (one year), spot, best (cheapest priced)"


@app.command(
    epilog="Exit code 2 and one line when no machine will do; with --json the document is printed all the same, its "
    "choice null and every refusal in it."
)
def size(
    model: Annotated[
        str | None,
        typer.Argument(help="A catalogue name, org/name, or a folder with a config.json; without it --task picks one."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="WORD", help="Task: sets the usual token counts; without MODEL picks the smallest suited."
        ),
    ] = None,
    input_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens of a request (default: by task).")
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens of an answer (default: by task).")
    ] = None,
    batch: Annotated[int | None, typer.Option(metavar="N", help="Requests served at once (default 1).")] = None,
    requests_per_day: Annotated[
        float | None, typer.Option(metavar="N", help="Requests a day, instead of a batch: tells how many hosts.")
    ] = None,
    latency: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Answer whole within so long (9 of 10 in the peak hour).")
    ] = None,
    peak_factor: Annotated[
        float | None, typer.Option(metavar="X", help="Busiest hour over the mean hour (default 3, an assumption).")
    ] = None,
    hours_per_day: Annotated[float, typer.Option(metavar="H", help="Hours of a day in which it runs.")] = 24.0,
    dtype: Annotated[str, typer.Option(metavar="NAME", help=f"{_DTYPES}; auto follows each GPU.")] = "auto",
    region: Annotated[str, typer.Option(metavar="NAME", help="AWS region, or any to compare all.")] = "us-east-1",
    pay: Annotated[str, typer.Option(metavar="WAY", help=f"{_PAYS}.")] = "on-demand",
    max_monthly: Annotated[float | None, typer.Option(metavar="USD", help="Largest cost a month, all hosts.")] = None,
    max_gpus: Annotated[int, typer.Option(metavar="N", help="Largest number of GPUs of a machine.")] = 1,
    loading: Annotated[
        str,
        typer.Option(
            metavar="WAY",
            show_default=False,
            help="How weights are read: plain, sharded, assign, mmap, convert (default: plain; mmap for vllm).",
        ),
    ] = "",
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="transformers (Berth's handler) or vllm.")
    ] = "transformers",
    json_output: JsonOption = False,
) -> None:
    """Say which machine serves a model most cheaply, why not the others, and what it costs."""
    from berth.show.asked import asked_model, asked_workload
    from sizing.choosing.wishes import Wishes
    from sizing.hardware.load import load_hardware

    wishes = Wishes(dtype, region, pay, max_monthly, max_gpus, loading, engine)
    hardware = load_hardware()

    def workload_of(facts: ModelFacts) -> Workload:
        return asked_workload(
            facts, task, input_tokens, output_tokens, batch, requests_per_day, latency, peak_factor, hours_per_day
        )

    facts, picked = asked_model(model, task, workload_of, hardware, wishes)
    _size_inference(facts, model or facts.name, workload_of(facts), hardware, wishes, picked, json_output)


def _size_inference(
    facts: ModelFacts,
    called: str,
    workload: Workload,
    hardware: Hardware,
    wishes: Wishes,
    picked: str,
    json_output: bool,
) -> None:
    from dataclasses import replace
    from shlex import quote

    from berth.output import console, print_json
    from sizing.choose import choose

    choice = choose(facts, workload, hardware, wishes)
    if picked:
        choice = replace(choice, notes=(picked, *choice.notes))
    if json_output:
        from sizing.choosing.document import document

        print_json(document(choice, hardware))
    if choice.chosen is None:
        raise _nothing_fits(choice, hardware)
    if not json_output:
        from berth.show.choice import show_choice
        from sizing.cost import costs_of

        out = console()
        show_choice(out, choice, choice.chosen, costs_of(choice))
        setup = f"--dtype {choice.chosen.serving.dtype} --batch {choice.chosen.serving.batch}"
        tokens = f"--input-tokens {workload.input_tokens} --output-tokens {workload.output_tokens}"
        out.print("\nNext")
        out.print(f"  berth memory {quote(called)} --for inference {setup} {tokens}", soft_wrap=True)


def _nothing_fits(choice: Choice, hardware: Hardware) -> Exception:
    from sizing.choose import would_fit
    from sizing.errors import UserError

    miss = choice.nearest_miss()
    nearest = f"; the nearest is {miss.instance_type}: {miss.reason}" if miss else ""
    help_ = would_fit(choice, hardware)
    return UserError(f"no machine serves {choice.model.name} as asked{nearest}" + (f"; {help_}" if help_ else ""))
