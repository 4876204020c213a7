"""`berth size`: which machine serves (or fine-tunes) a model, why not the others, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from berth.options import PurposeOption
from berth.output import JsonOption
from sizing.dtypes import DTYPES

if TYPE_CHECKING:
    from sizing.choose import Choice
    from sizing.choosing.wishes import Wishes
    from sizing.hardware.load import Hardware
    from sizing.measured.outcome import Outcome
    from sizing.models.facts import ModelFacts
    from sizing.training_plan.plan import TrainingPlan
    from sizing.training_plan.task import TrainingTask, TrainingWishes
    from sizing.workload import Workload

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_DTYPES = ", ".join(("auto", *DTYPES))
_PAYS = "on-demand, reserved-1y, reserved-3y, savings-1y, savings-3y, savings (one year), spot, best (cheapest priced)"


@app.command(
    epilog="Exit code 2 and one line when no machine will do; with --json the document is printed all the same, its "
    "choice (or plan) null and every refusal in it. With --for training the options that say (training) apply, and "
    "--task, --input-tokens, --output-tokens, --region and --pay, which knows capacity-block as well."
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
    hours_per_day: Annotated[
        float | None, typer.Option(metavar="H", help="Hours of a day in which it runs (default 24).")
    ] = None,
    dtype: Annotated[
        str, typer.Option(metavar="NAME", show_default=False, help=f"{_DTYPES}; auto (default) follows each GPU.")
    ] = "",
    region: Annotated[str, typer.Option(metavar="NAME", help="AWS region, or any to compare all.")] = "us-east-1",
    pay: Annotated[str, typer.Option(metavar="WAY", help=f"{_PAYS}.")] = "on-demand",
    max_monthly: Annotated[float | None, typer.Option(metavar="USD", help="Largest cost a month, all hosts.")] = None,
    max_gpus: Annotated[
        int | None, typer.Option(metavar="N", help="Largest number of GPUs of a machine (default 1).")
    ] = None,
    loading: Annotated[
        str,
        typer.Option(
            metavar="WAY",
            show_default=False,
            help="How weights are read: plain, sharded, assign, mmap, convert (default: plain; mmap for vllm).",
        ),
    ] = "",
    engine: Annotated[
        str,
        typer.Option(metavar="NAME", show_default=False, help="transformers (Berth's handler, the default) or vllm."),
    ] = "",
    measured: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="What berth verify --report measured takes the place of estimates; may be repeated."
        ),
    ] = None,
    purpose: PurposeOption = "inference",
    data: Annotated[
        str | None,
        typer.Option(
            metavar="N|FILE", help="(training) Examples: a number, or a .jsonl, .json, .csv or .parquet file."
        ),
    ] = None,
    epochs: Annotated[float | None, typer.Option(metavar="E", help="(training) Passes over them (default 1).")] = None,
    global_batch: Annotated[
        int | None, typer.Option(metavar="B", help="(training) Examples of a step, over all GPUs (default 64).")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="(training) any, or full, lora, qlora, prompt with commas (default any)."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="(training) auto, bf16, fp16, fp32 or pure-bf16 (default auto, by GPU)."),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="(training) any, or adamw, adamw8bit, adafactor, sgd, lion (default adamw)."
        ),
    ] = None,
    max_hours: Annotated[
        float | None, typer.Option(metavar="H", help="(training) Longest run, start included.")
    ] = None,
    max_usd: Annotated[float | None, typer.Option(metavar="USD", help="(training) Largest cost of the run.")] = None,
    max_nodes: Annotated[
        int | None,
        typer.Option(metavar="N", help="(training) Most machines (default: 1, more where a method needs them)."),
    ] = None,
    context_window: Annotated[
        int | None,
        typer.Option(metavar="L", help="(training) Tokens of the longest example; longer than pretraining's."),
    ] = None,
    instance_type: Annotated[
        str | None, typer.Option(metavar="NAME", help="(training) Only this instance type.")
    ] = None,
    base_dtype: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="(training) How frozen weights are held: int8, nf4, nf4-dq (default by method)."
        ),
    ] = None,
    lora_rank: Annotated[
        int | None, typer.Option(metavar="R", help="(training) Rank of LoRA's matrices (default 16).")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(metavar="PATH", help="(training) A tokenizer.json that counts the file's tokens.")
    ] = None,
    write_config: Annotated[
        Path | None, typer.Option(metavar="DIR", help="(training) Write the files that run the plan there.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Say which machine serves a model most cheaply, or fine-tunes it, why not the others, and what it costs."""
    from berth.show.asked import asked_model, asked_workload, check_purpose
    from berth.show.asked_training import asked_task, refuse_given
    from sizing.choosing.wishes import Wishes
    from sizing.hardware.load import load_hardware

    check_purpose(purpose)
    hardware = load_hardware()
    if purpose == "training":
        refuse_given(
            {
                "--batch": batch,
                "--requests-per-day": requests_per_day,
                "--latency": latency,
                "--peak-factor": peak_factor,
                "--hours-per-day": hours_per_day,
                "--dtype": dtype,
                "--max-monthly": max_monthly,
                "--max-gpus": max_gpus,
                "--loading": loading,
                "--engine": engine,
                "--measured": measured,
            },
            purpose,
        )
        from berth.hub import find_model
        from sizing.errors import UserError
        from sizing.training_plan.task import METHODS, OPTIMIZERS, TrainingWishes, chosen_of

        if model is None:
            raise UserError("which model is to be fine-tuned? Name one; `berth models` lists them")
        training = TrainingWishes(
            methods=chosen_of(method or "any", METHODS, "method"),  # type: ignore[arg-type]
            precision=precision or "auto",
            optimizers=chosen_of(optimizer or "adamw", OPTIMIZERS, "optimizer"),  # type: ignore[arg-type]
            region=region,
            pay=pay,
            max_hours=max_hours,
            max_usd=max_usd,
            max_nodes=max_nodes,
            instance=instance_type or "",
            base_dtype=base_dtype or "",
            lora_rank=16 if lora_rank is None else lora_rank,
        )
        facts = find_model(model)
        asked = asked_task(
            facts,
            data,
            1.0 if epochs is None else epochs,
            global_batch,
            task,
            input_tokens,
            output_tokens,
            context_window,
            tokenizer,
        )
        _size_training(facts, model, asked, hardware, training, write_config, json_output)
        return
    refuse_given(
        {
            "--data": data,
            "--epochs": epochs,
            "--global-batch": global_batch,
            "--method": method,
            "--precision": precision,
            "--optimizer": optimizer,
            "--max-hours": max_hours,
            "--max-usd": max_usd,
            "--max-nodes": max_nodes,
            "--context-window": context_window,
            "--instance-type": instance_type,
            "--base-dtype": base_dtype,
            "--lora-rank": lora_rank,
            "--tokenizer": tokenizer,
            "--write-config": write_config,
        },
        f"{purpose} (add --for training)",
    )
    wishes = Wishes(
        dtype or "auto",
        region,
        pay,
        max_monthly,
        1 if max_gpus is None else max_gpus,
        loading,
        engine or "transformers",
    )
    hours = 24.0 if hours_per_day is None else hours_per_day

    def workload_of(facts: ModelFacts) -> Workload:
        return asked_workload(
            facts, task, input_tokens, output_tokens, batch, requests_per_day, latency, peak_factor, hours
        )

    facts, picked = asked_model(model, task, workload_of, hardware, wishes)
    _size_inference(
        facts, model or facts.name, workload_of(facts), hardware, wishes, picked, tuple(measured or ()), json_output
    )


def _size_inference(
    facts: ModelFacts,
    called: str,
    workload: Workload,
    hardware: Hardware,
    wishes: Wishes,
    picked: str,
    measured: tuple[Path, ...],
    json_output: bool,
) -> None:
    from dataclasses import replace
    from shlex import quote

    from berth.output import console, print_json
    from sizing.choose import choose

    outcome = _measured_outcome(facts, workload, hardware, wishes, measured) if measured else None
    choice = choose(facts, workload, hardware, wishes) if outcome is None else outcome.choice
    if picked:
        choice = replace(choice, notes=(picked, *choice.notes))
    if json_output:
        from sizing.choosing.document import document

        print_json(document(choice, hardware, outcome))
    if choice.chosen is None:
        if outcome is not None and not json_output:
            from berth.show.choice import show_measured

            show_measured(console(), outcome)
        raise _nothing_fits(choice, hardware)
    if not json_output:
        from berth.show.choice import show_choice
        from sizing.cost import costs_of

        out = console()
        show_choice(out, choice, choice.chosen, costs_of(choice), outcome)
        setup = f"--dtype {choice.chosen.serving.dtype} --batch {choice.chosen.serving.batch}"
        tokens = f"--input-tokens {workload.input_tokens} --output-tokens {workload.output_tokens}"
        out.print("\nNext")
        out.print(f"  berth memory {quote(called)} --for inference {setup} {tokens}", soft_wrap=True)


def _measured_outcome(
    facts: ModelFacts, workload: Workload, hardware: Hardware, wishes: Wishes, paths: tuple[Path, ...]
) -> Outcome:
    from sizing.measured.outcome import choose_measured
    from sizing.measured.read import read_measured

    return choose_measured(facts, workload, hardware, wishes, tuple(read_measured(p, hardware) for p in paths))


def _nothing_fits(choice: Choice, hardware: Hardware) -> Exception:
    from sizing.choose import would_fit
    from sizing.errors import UserError

    miss = choice.nearest_miss()
    nearest = f"; the nearest is {miss.instance_type}: {miss.reason}" if miss else ""
    help_ = would_fit(choice, hardware)
    return UserError(f"no machine serves {choice.model.name} as asked{nearest}" + (f"; {help_}" if help_ else ""))


def _size_training(
    facts: ModelFacts,
    called: str,
    task: TrainingTask,
    hardware: Hardware,
    wishes: TrainingWishes,
    folder: Path | None,
    json_output: bool,
) -> None:
    from shlex import quote

    from berth.output import console, print_json
    from sizing.training_plan.configuration import configuration, write_configuration
    from sizing.training_plan.search import search

    found = search(facts, task, hardware, wishes)
    if json_output:
        from sizing.training_plan.document import document

        print_json(document(found, hardware))
    plan = found.recommended
    if plan is None:
        raise _no_plan(found, hardware)
    written = () if folder is None else write_configuration(folder, configuration(facts, task, plan))
    if json_output:
        return
    from berth.show.training_plan import show_training_plan

    out = console()
    show_training_plan(out, found, plan, hardware)
    if written:
        out.print(f"\nWritten: {', '.join(str(path) for path in written)}", soft_wrap=True)
    setup = plan.setup
    tokens = f"--input-tokens {setup.input_tokens}" + (
        f" --output-tokens {setup.output_tokens}" if setup.output_tokens else ""
    )
    way = f"--method {setup.method} --precision {setup.precision} --gpus {setup.gpus} --zero {setup.zero_stage}"
    way += f" --offload {setup.offload}" + (" --checkpointing" if setup.checkpointing else "")
    out.print("\nNext")
    if not written:
        out.print("  the same with --write-config DIR writes the files that run this plan")
    out.print(
        f"  berth memory {quote(called)} --for training {way} --micro-batch {setup.micro_batch} {tokens}",
        soft_wrap=True,
    )


def _no_plan(found: TrainingPlan, hardware: Hardware) -> Exception:
    from sizing.errors import UserError
    from sizing.training_plan.search import would_fit

    miss = found.nearest_miss()
    nearest = f"; the nearest is {miss.instance_type}: {miss.reason}" if miss else ""
    help_ = would_fit(found, hardware)
    return UserError(f"no machine fine-tunes {found.model.name} as asked{nearest}" + (f"; {help_}" if help_ else ""))
