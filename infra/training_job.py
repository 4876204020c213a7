"""The run of a training stack: from its settings to sizing's plan, and from the plan to what its nodes carry out."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import metrics
from infra.durations import parse_duration
from infra.settings import AUTO, TrainingSettings
from model_runtime.errors import in_one_line
from model_runtime.handler.bundle import Bundle
from model_runtime.training.bundle import DATA, MODEL, OUTPUT, write_training_bundle
from model_runtime.training.settings import settings_from
from model_runtime.watch.limits import Limits
from sizing.errors import UserError
from sizing.hardware.load import Hardware
from sizing.hardware.types import Gpu, InstanceType
from sizing.memory.loading import usable_ram_bytes
from sizing.memory.training.estimate import estimate_training
from sizing.memory.training.setup import Method, TrainingSetup
from sizing.models.facts import ModelFacts
from sizing.training_plan.configuration import PLAN, configuration, write_configuration
from sizing.training_plan.dataset import read_data
from sizing.training_plan.lengths import Lengths, lengths_of
from sizing.training_plan.plan import Plan
from sizing.training_plan.search import plan_as_set, search
from sizing.training_plan.strategies import Strategy, precision_on, quantization_gap
from sizing.training_plan.task import TrainingTask, TrainingWishes
from sizing.units import gib

if TYPE_CHECKING:
    from infra.context import Context
    from infra.stack_files import StackFile

METHODS: tuple[Method, ...] = ("full", "lora", "qlora")
"""What a node can carry out; sizing alone knows prompt tuning as well."""
_NOMINAL_STEPS = 1000
"""Of a run whose examples are not known: on one machine the fastest way is the same for any number of steps."""
_OPTIONS = (("--max-hours", "time_to_live"), ("--max-usd", "budget_per_run"))
_EXACTLY = " (--tokenizer counts exactly)"
"""Of `berth size` alone."""
_DECIDED = frozenset(
    {"model", "data", "output", "plan", "upload", "method", "precision", "optimizer", "epochs", "micro_batch_size",
     "gradient_accumulation_steps", "gradient_checkpointing", "processes", "lora_rank", "max_input_tokens",
     "max_target_tokens", "instance_type", "usd_per_hour", "model_name"}
)  # fmt: skip
"""Settings of a run that follow from the stack, so that the file of further ones must not name them."""


def described(data: str, model: ModelFacts) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Settings that say of a data set what sizing asks: examples and, of a file, their longest and average lengths.

    `data` is a number of examples or a local file of them (`sizing.training_plan.dataset.read_data`). The notes say
    what was assumed. Raises `UserError` for what is neither.
    """
    read = read_data(data)
    said = tuple(note.replace(_EXACTLY, "") for note in read.notes)
    if not read.sample:
        return {"examples": read.examples}, said
    lengths = lengths_of(model, read.sample, None, None, None)
    found: dict[str, Any] = {
        "examples": read.examples,
        "input_tokens": lengths.input_tokens,
        "output_tokens": lengths.output_tokens,
        "mean_input_tokens": _mean(lengths.inputs),
    }
    if lengths.outputs:
        found["mean_output_tokens"] = _mean(lengths.outputs)
    return found, (*said, *lengths.notes)


def _mean(values: tuple[int, ...]) -> int:
    return max(1, round(sum(values) / len(values)))


def task_of(settings: TrainingSettings, model: ModelFacts) -> TrainingTask:
    """What is to be trained, as sizing understands it; a nominal number of examples where the stack says none."""
    output = settings.output_tokens if model.generates else 0
    found = lengths_of(model, (), settings.input_tokens, output, None)
    inputs = (settings.mean_input_tokens,) if settings.mean_input_tokens else ()
    outputs = (settings.mean_output_tokens,) if settings.mean_output_tokens and found.output_tokens else ()
    lengths = Lengths(found.input_tokens, found.output_tokens, inputs, outputs, found.notes)
    examples = settings.examples or _NOMINAL_STEPS * settings.global_batch
    return TrainingTask(examples, lengths, settings.epochs, settings.global_batch)


def wishes_of(settings: TrainingSettings, region: str, pay: str = "") -> TrainingWishes:
    """What is wished of the plan. The run must end before the watchdog stops it, within the budget of a run."""
    known = bool(settings.examples)
    lives = parse_duration(settings.time_to_live)
    hours = (lives.total_seconds() - Limits().lead_s) / 3600.0 if lives is not None and known else None
    if hours is not None and hours <= 0:
        raise UserError(
            f"time_to_live: {settings.time_to_live} leaves no time to train; its last {Limits().lead_s / 60:.0f} "
            "minutes are for saving the work"
        )
    return TrainingWishes(
        methods=(settings.method,) if settings.method != AUTO else METHODS,  # type: ignore[arg-type]
        precision=settings.dtype,
        optimizers=(settings.optimizer,),
        region=region,
        pay=pay or settings.purchase,
        max_hours=hours,
        max_usd=float(settings.budget_per_run) if settings.budget_per_run and known else None,
        # Nobody's one machine becomes several: only with the type is their number sizing's to choose.
        nodes=None if settings.instance_type == AUTO and settings.nodes == 1 else settings.nodes,
        instance="" if settings.instance_type == AUTO else settings.instance_type,
        lora_rank=settings.lora_rank,
    )


def choose_plan(
    settings: TrainingSettings, region: str, model: ModelFacts, hardware: Hardware, pay: str = ""
) -> tuple[Plan, tuple[str, ...]]:
    """Sizing's plan for the stack's run and why: on its machine where one is recorded, else on the one that wins.

    Raises `UserError` where nothing keeps the limits, with the nearest miss, and where a machine is to be chosen for a
    number of examples that is not known.
    """
    wishes = wishes_of(settings, region, pay)
    if not wishes.instance and not settings.examples:
        raise UserError(
            f"examples: is missing; sizing chooses the machine that trains {model.name} by the length of the run. "
            "Give the number of examples (--data N, or --data FILE to have them counted), or an instance type"
        )
    found = search(model, task_of(settings, model), hardware, wishes)
    plan = found.recommended
    if plan is None:
        miss = found.nearest_miss()
        reason = "" if miss is None else f"; the nearest is {miss.instance_type}: {miss.reason}"
        for option, key in _OPTIONS:
            reason = reason.replace(option, key)
        raise UserError(f"no machine fine-tunes {model.name} in {region} as asked{reason}")
    gpus = f"{plan.setup.gpus} × {plan.instance.gpu.name}" if plan.instance.gpu else ""
    run = f", {plan.hours:,.1f} h and ${plan.usd.likely:,.2f} as likely" if settings.examples else ""
    why = f"{plan.label} ({gpus}): {plan.setup.method} in {plan.setup.precision}, {plan.strategy.label}{run}"
    return plan, (why, *found.notes)


def values_of(plan: Plan) -> dict[str, Any]:
    """The settings that record a plan, so that `recorded_plan` finds it again."""
    setup = plan.setup
    return {
        "instance_type": plan.instance.name,
        "nodes": plan.nodes,
        "dtype": setup.precision,
        "method": setup.method,
        "micro_batch_size": setup.micro_batch,
        "zero_stage": setup.zero_stage,
        "offload": setup.offload,
        "checkpointing": setup.checkpointing,
    }


def recorded_plan(settings: TrainingSettings, region: str, model: ModelFacts, hardware: Hardware) -> Plan:
    """The plan that the stack file records, with its memory, time and cost. Nothing is chosen anew.

    Raises `UserError` where none is recorded, where it contradicts itself, and for a machine without a known price.
    """
    if AUTO in (settings.instance_type, settings.dtype) or not settings.micro_batch_size:
        raise UserError(
            "the stack records no plan of its run (micro_batch_size, dtype, instance_type); "
            "run `berth settings STACK --record`, which writes sizing's choice into the stack file"
        )
    wishes = replace(
        wishes_of(settings, region), instance=settings.instance_type, nodes=settings.nodes, max_hours=None, max_usd=None
    )
    strategy = Strategy(settings.zero_stage, settings.offload, settings.checkpointing)
    return plan_as_set(model, task_of(settings, model), hardware, wishes, strategy, settings.micro_batch_size)


def too_small(settings: TrainingSettings, region: str, model: ModelFacts, hardware: Hardware) -> str:
    """Empty, or why the stack's machine cannot hold its run: the GPU's or the RAM's largest term and what is missing.

    A run that is not recorded is searched for; what it cannot be planned for but memory says nothing here.
    """
    instance = hardware.instance(settings.instance_type)
    gpu = instance.gpu
    if gpu is None:
        return f"{instance.name} has no GPU to train on"
    if not settings.micro_batch_size:
        try:
            found = search(model, task_of(settings, model), hardware, wishes_of(settings, region))
        except UserError:
            return ""  # without prices in the region, say: the plan's warnings tell it
        misses = [r for r in found.refused if r.kind in ("GPU memory", "system RAM", "precision")]
        return "" if found.recommended or not misses else f"{instance.name} cannot hold the run: {misses[0].reason}"
    precision = precision_on(model, gpu, settings.dtype)
    gap = quantization_gap(gpu, "nf4-dq") if settings.method == "qlora" else ""
    if precision != settings.dtype or gap:
        return f"{instance.name} cannot train it: {gap or precision}"
    return _short(settings, model, instance, gpu)


def _short(settings: TrainingSettings, model: ModelFacts, instance: InstanceType, gpu: Gpu) -> str:
    task = task_of(settings, model)
    world = instance.gpus * settings.nodes
    setup = TrainingSetup(
        method=settings.method,  # type: ignore[arg-type]  # auto is not recorded
        precision=settings.dtype,  # type: ignore[arg-type]
        optimizer=settings.optimizer,
        micro_batch=settings.micro_batch_size,
        input_tokens=task.lengths.input_tokens,
        output_tokens=task.lengths.output_tokens,
        gpus=world,
        gpus_per_node=instance.gpus,
        zero_stage=settings.zero_stage,
        offload=settings.offload,
        checkpointing=settings.checkpointing,
        lora_rank=settings.lora_rank,
        gradient_accumulation_steps=max(1, -(-task.global_batch // world) // settings.micro_batch_size),
        padded=True,
    )
    memory = estimate_training(model, setup)
    for what, needed, room in (
        (f"memory of each {gpu.name}", memory.device, gpu.memory_bytes),
        ("system RAM", memory.host, usable_ram_bytes(instance.memory_bytes)),
    ):
        if needed.total_bytes > room:
            largest = needed.largest()
            return (
                f"{instance.name} cannot hold the run: {what}: {setup.method} with micro-batch {setup.micro_batch} "
                f"takes {gib(needed.total_bytes)} of {gib(room)}, {gib(needed.total_bytes - room)} short "
                f"(largest term: {largest.name} {gib(largest.bytes)})"
            )
    return ""


def plan_files(settings: TrainingSettings, plan: Plan, model: ModelFacts) -> dict[str, Any]:
    """The files of the plan by name, as `berth size --for training --write-config` writes them.

    What follows from a number of examples that is not known stands as null.
    """
    files = configuration(model, task_of(settings, model), plan)
    if not settings.examples:
        details = files[PLAN]
        files[PLAN] = details | {
            "examples": None,
            "steps": None,
            "predicted": details["predicted"] | {"hours": None, "usd": None},
        }
    return files


def finetune_settings(file: StackFile, plan: Plan, context: Context, plan_folder: str = "") -> dict[str, Any]:
    """The settings of `python -m model_runtime.finetune` on the stack's nodes: `finetune.json` as a JSON object.

    `plan_folder` holds the plan's files (`plan_files`). The places are the node's own, see
    `model_runtime.training.bundle`. `upload` stays empty: the run takes the bucket and prefix that the node's
    environment names (BERTH_BUCKET, BERTH_OUTPUT). The stack's `finetune` file adds what the stack does not decide.
    Raises `UserError` for a file that holds anything else.
    """
    settings = _training(file.settings)
    setup, given = plan.setup, _further(file, settings)
    found: dict[str, Any] = {
        "metrics": metrics.METRICS_FILE,
        "namespace": metrics.NAMESPACE,
        **given,
        "model": MODEL,
        "model_name": context.model.name if context.model else settings.model,
        "data": DATA,
        "output": OUTPUT,
        "plan": plan_folder,
        "method": setup.method,
        "precision": "bf16" if setup.precision == "pure-bf16" else setup.precision,
        "lora_rank": setup.lora_rank,
        "micro_batch_size": setup.micro_batch,
        "gradient_accumulation_steps": setup.gradient_accumulation_steps,
        "processes": plan.instance.gpus,
        "epochs": settings.epochs,
        "gradient_checkpointing": setup.checkpointing,
        "max_input_tokens": setup.input_tokens,
        "max_target_tokens": setup.output_tokens,
        "instance_type": plan.instance.name,
        "usd_per_hour": plan.usd_per_hour,
    }
    with in_one_line():
        settings_from(found, f"stack {file.name}")
    return found


def write_bundle(file: StackFile, context: Context, target: Path) -> Bundle:
    """Write the folder that the stack's nodes run: settings, plan, packages, manifest; it replaces an earlier one.

    `context` is the stack's as `infra.resolve.resolve` makes it (strict: only what is recorded is carried out).
    Raises `UserError` where the stack records no plan, or `target` is something else.
    """
    settings = _training(context.settings)
    if context.model is None:
        raise TypeError(f"{context.stack} has no model")
    plan = recorded_plan(settings, context.region, context.model, context.hardware)
    with tempfile.TemporaryDirectory() as place, in_one_line():
        folder = Path(place) / "plan"
        write_configuration(folder, plan_files(settings, plan, context.model))
        values = finetune_settings(replace(file, settings=settings), plan, context, str(folder))
        return write_training_bundle(target, settings_from(values, f"stack {file.name}"))


def _training(settings: Any) -> TrainingSettings:
    if not isinstance(settings, TrainingSettings):
        raise UserError(f"the stack's role is {settings.role}; only a training stack has a run")
    return settings


def _further(file: StackFile, settings: TrainingSettings) -> dict[str, Any]:
    """What the stack's file of further settings says; paths in it start at the project."""
    if not settings.finetune:
        return {}
    path = file.path.parent.parent / settings.finetune
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"finetune: {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"finetune: {path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"finetune: {path} holds no JSON object")
    if taken := sorted(_DECIDED & found.keys()):
        raise UserError(f"finetune: {path} names {', '.join(taken)}; the stack file decides that")
    return found
