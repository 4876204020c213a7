"""`berth memory`: a model's memory, term by term, for serving it or for fine-tuning it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.options import PurposeOption
from berth.output import JsonOption, console, print_json
from sizing.dtypes import DTYPES

if TYPE_CHECKING:
    from sizing.hardware.types import InstanceType
    from sizing.memory.terms import MemoryEstimate
    from sizing.models.facts import ModelFacts

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_INFERENCE, _TRAINING = "Serving", "Fine-tuning"
_PURPOSES = {"inference": _INFERENCE, "training": _TRAINING}
"""The group of options that each purpose has for itself."""
_DTYPES = ", ".join(("auto (as published)", *DTYPES))


@app.command(
    epilog="JSON: device: {terms: [{name, bytes, formula}], total_bytes, by_metric}, host: {…}, "
    "rule_of_thumb: {params, bytes_per_param, overhead, total_bytes}. Sizes are bytes; total_bytes is as the "
    "driver sees it."
)
def memory(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A catalogue name, org/name, or a folder with a config.json.")],
    purpose: PurposeOption = "inference",
    input_tokens: Annotated[int, typer.Option(metavar="N", help="Tokens of each input sequence.")] = 512,
    output_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Tokens of each answer (default 128; in training of an encoder-decoder its target's)."
        ),
    ] = None,
    attention: Annotated[str, typer.Option(metavar="NAME", help="eager, sdpa or flash.")] = "sdpa",
    tensor_parallel: Annotated[
        int, typer.Option(metavar="N", help="Devices that share each layer; terms are per device.")
    ] = 1,
    instance: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="Hold the estimate against this instance type, e.g. g4dn.2xlarge."),
    ] = None,
    dtype: Annotated[str, typer.Option(metavar="NAME", help=f"{_DTYPES}.", rich_help_panel=_INFERENCE)] = "auto",
    batch: Annotated[int, typer.Option(metavar="N", help="Sequences at once.", rich_help_panel=_INFERENCE)] = 1,
    loading: Annotated[
        str, typer.Option(metavar="WAY", help="How the model is read: plain, mmap …", rich_help_panel=_INFERENCE)
    ] = "plain",
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Whose allocations: transformers, transformers-4.3x, litgpt, autoawq, vllm.",
            rich_help_panel=_INFERENCE,
        ),
    ] = "transformers",
    method: Annotated[
        str, typer.Option(metavar="NAME", help="full, lora, qlora or prompt.", rich_help_panel=_TRAINING)
    ] = "full",
    precision: Annotated[
        str, typer.Option(metavar="NAME", help="bf16, fp16 (both mixed), fp32 or pure-bf16.", rich_help_panel=_TRAINING)
    ] = "bf16",
    optimizer: Annotated[
        str,
        typer.Option(metavar="NAME", help="adamw, adamw8bit, adafactor, sgd or lion.", rich_help_panel=_TRAINING),
    ] = "adamw",
    micro_batch: Annotated[
        int, typer.Option(metavar="N", help="Sequences per GPU and step.", rich_help_panel=_TRAINING)
    ] = 1,
    gpus: Annotated[int, typer.Option(metavar="N", help="GPUs, of all nodes.", rich_help_panel=_TRAINING)] = 1,
    zero: Annotated[
        int, typer.Option(metavar="STAGE", help="DeepSpeed ZeRO stage: 0, 1, 2 or 3.", rich_help_panel=_TRAINING)
    ] = 0,
    offload: Annotated[
        str,
        typer.Option(metavar="WHAT", help="To host memory: none, optimizer or all.", rich_help_panel=_TRAINING),
    ] = "none",
    checkpointing: Annotated[
        bool,
        typer.Option("--checkpointing", help="Keep layer inputs only and recompute.", rich_help_panel=_TRAINING),
    ] = False,
    lora_rank: Annotated[
        int, typer.Option(metavar="R", help="Rank of LoRA's matrices.", rich_help_panel=_TRAINING)
    ] = 16,
    lora_targets: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Layers that LoRA adapts, by their last names with commas, or all-linear (default: PEFT's).",
            rich_help_panel=_TRAINING,
        ),
    ] = "",
    base_dtype: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How frozen weights are held: bf16, int8, nf4, nf4-dq … (default by method).",
            rich_help_panel=_TRAINING,
        ),
    ] = "",
    gradient_accumulation: Annotated[
        int,
        typer.Option(metavar="N", help="Passes of a step, over which gradients add up.", rich_help_panel=_TRAINING),
    ] = 1,
    json_output: JsonOption = False,
) -> None:
    """Memory of a model, term by term, on the device and on the host, with its formula and its range.

    What it predicts is said with each total: allocated, reserved, or as the driver sees it.
    """
    from berth.hub import find_model
    from berth.show.asked import check_purpose
    from sizing.choosing.wishes import check_engine
    from sizing.errors import UserError
    from sizing.workload import default_tokens

    check_purpose(purpose)
    if attention not in ("eager", "sdpa", "flash"):
        raise UserError(f"attention is '{attention}'; allowed: eager, sdpa, flash")
    _refuse_other_purpose(context, purpose)
    facts = find_model(model)
    if purpose == "inference":
        check_engine(facts, engine)
        _, answer = default_tokens(facts, "", input_tokens, output_tokens)
        estimate, situation, setup = _inference(
            facts,
            dtype=dtype,
            batch=batch,
            input_tokens=input_tokens,
            output_tokens=answer,
            tensor_parallel=tensor_parallel,
            engine=engine,
            attention=attention,
            loading=loading,
        )
        devices = tensor_parallel
    else:
        estimate, situation, setup = _training(
            facts,
            method=method,
            precision=precision,
            optimizer=optimizer,
            micro_batch=micro_batch,
            input_tokens=input_tokens,
            output_tokens=output_tokens or 0,
            gpus=gpus,
            zero_stage=zero,
            offload=offload,
            checkpointing=checkpointing,
            attention=attention,
            tensor_parallel=tensor_parallel,
            lora_rank=lora_rank,
            lora_targets=tuple(name.strip() for name in lora_targets.split(",") if name.strip()),
            base_dtype=base_dtype,
            gradient_accumulation_steps=gradient_accumulation,
        )
        devices = gpus
    machine = None
    if instance is not None:
        from sizing.hardware.load import load_hardware

        machine = load_hardware().instance(instance)
    if json_output:
        against = None if machine is None else _held_against(estimate, machine, devices)
        print_json({"model": facts.name, "for": purpose, "setup": setup, **estimate.to_json(), "instance": against})
        return
    from berth.show.memory import show_memory

    host = "Host memory while loading" if purpose == "inference" else "Host memory, loading or training"
    show_memory(console(), facts, estimate, situation, machine, devices, host)


def _refuse_other_purpose(context: typer.Context, purpose: str) -> None:
    """Refuse an option that the purpose would pass over in silence."""
    from sizing.errors import UserError

    for parameter in context.command.params:
        group = getattr(parameter, "rich_help_panel", None)
        source = context.get_parameter_source(parameter.name or "")
        if group in (None, _PURPOSES[purpose]) or source is None or source.name != "COMMANDLINE":
            continue
        other = next(p for p, panel in _PURPOSES.items() if panel == group)
        raise UserError(f"{parameter.opts[0]} is for --for {other}; leave it out, or ask --for {other}")


def _held_against(estimate: MemoryEstimate, instance: InstanceType, devices: int) -> dict[str, Any]:
    """Whether an instance type holds the estimate, and what is short."""
    from sizing.memory.loading import usable_ram_bytes

    gpu, usable = instance.gpu, usable_ram_bytes(instance.memory_bytes)
    gpu_short = None if gpu is None else max(0, estimate.device.total_bytes - gpu.memory_bytes)
    ram_short = max(0, estimate.host.total_bytes - usable)
    return {
        "instance_type": instance.name,
        "gpu": gpu.name if gpu else None,
        "gpus": instance.gpus,
        "gpu_memory_bytes": gpu.memory_bytes if gpu else None,
        "gpu_short_bytes": gpu_short or None,
        "usable_ram_bytes": usable,
        "ram_short_bytes": ram_short or None,
        "fits": gpu_short == 0 and ram_short == 0 and instance.gpus >= devices,
    }


def _inference(facts: ModelFacts, **asked: Any) -> tuple[MemoryEstimate, str, dict[str, Any]]:
    """The estimate, what it holds for in words, and the same by name."""
    from sizing.dtypes import dtype as dtype_called
    from sizing.memory.inference import estimate_inference
    from sizing.memory.setup import InferenceSetup, published_dtype

    kind = dtype_called(published_dtype(facts) if asked["dtype"] == "auto" else asked["dtype"])
    asked["dtype"] = kind.name
    setup = InferenceSetup(**asked)
    answer = f", {setup.output_tokens:,} out" if facts.generates else ""
    split = f", tensor parallel over {setup.tensor_parallel}" if setup.tensor_parallel > 1 else ""
    situation = (
        f"serving in {kind.name} ({kind.label}), {setup.batch:,} at once, {setup.input_tokens:,} tokens in{answer}"
        f"{split}, {setup.engine}, {setup.attention} attention, loading '{setup.loading}'"
    )
    return estimate_inference(facts, setup), situation, asked


def _training(facts: ModelFacts, **asked: Any) -> tuple[MemoryEstimate, str, dict[str, Any]]:
    from sizing.dtypes import dtype as dtype_called
    from sizing.errors import UserError
    from sizing.memory.training.estimate import estimate_training
    from sizing.memory.training.setup import TrainingSetup

    method = asked["method"]
    if asked["base_dtype"]:
        asked["base_dtype"] = dtype_called(asked["base_dtype"]).name
    for option, value, methods in (
        ("--base-dtype", asked["base_dtype"], ("lora", "qlora")),
        ("--lora-targets", asked["lora_targets"], ("lora", "qlora")),
    ):
        if value and method not in methods:
            raise UserError(f"{option} is for --method lora or qlora; method {method} has no such part")
    setup = TrainingSetup(**asked)
    target = f" and {setup.output_tokens:,}" if setup.output_tokens else ""
    kept = ", checkpointing" if setup.checkpointing else ""
    adapted = f", adapters on {', '.join(setup.lora_targets)}" if setup.lora_targets else ""
    held = f", frozen weights in {setup.base_dtype}" if setup.base_dtype else ""
    passes = setup.gradient_accumulation_steps
    added = f", {passes:,} passes a step" if passes > 1 else ""
    moved = f", offload {setup.offload}" if setup.offload != "none" else ""
    situation = (
        f"{setup.method} fine-tuning in {setup.precision}, {setup.optimizer}, {setup.micro_batch:,} × "
        f"{setup.input_tokens:,}{target} tokens a GPU, {setup.gpus:,} GPU(s), ZeRO {setup.zero_stage}{moved}{kept}, "
        f"{setup.attention} attention{added}{adapted}{held}"
    )
    shown = {**asked, "lora_targets": list(setup.lora_targets), "base_dtype": setup.base_dtype or None}
    return estimate_training(facts, setup), situation, shown
