"""Writes docs/training-plans.md: how a plan is found, and the reference cases with published times beside them.

Everything below the rules is real output of the search and of `berth size --for training` with the data in force.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from berth.report.files import write_text
from berth.show.training_plan import duration
from sizing.hardware.load import load_hardware
from sizing.models.catalogue import load_catalogue
from sizing.training_plan.lengths import lengths_of
from sizing.training_plan.plan import Plan
from sizing.training_plan.search import search
from sizing.training_plan.task import TrainingTask, TrainingWishes

PAGE = Path(__file__).resolve().parent.parent / "docs" / "training-plans.md"
SHOWN = "size google/flan-t5-xl --for training --data 15000 --epochs 3 --max-hours 4"
HEAD = """\
# Training plans

`berth size MODEL --for training --data N|FILE --epochs E` says on which machine, with which method and settings, a
fine-tune runs most cheaply, how long it takes, what it costs, and why every other machine lost; `--write-config DIR`
writes the files that run it. This page is written by `scripts/training_plans_page.py`.

## What is searched

- **Method**: full, lora, qlora, prompt (`--method` narrows it). Adapters are cheaper and not the same: compare answers.
  Where two methods cost the same on a machine (within a hundredth), the one that trains more of the model counts.
- **Precision**: bf16 where the GPU has it; fp16 on T4 and V100, but fp32 there for T5 and its kin, which overflow in
  fp16. `--precision` asks for another; pure-bf16 has no master weights and is never chosen unasked.
- **Optimizer**: AdamW; `--optimizer any` (or a list) compares the others, which learn differently.
- **Strategy**: one GPU or DistributedDataParallel, DeepSpeed ZeRO-1, 2 and 3, the optimizer or everything offloaded to
  the host, each with and without activation checkpointing.
- **Micro-batch**: every divisor of what a GPU handles in a step, so that `--global-batch` is kept exactly. Where the
  GPUs cannot share it evenly it is rounded up, and said.
- **Machine**: every NVIDIA type that has a price under `--pay` in `--region`. One machine; two, four or eight of a type
  (8 GPUs, 100 Gbit/s and more) for a method that no single machine can run, or where `--max-nodes` allows them.

On one machine the fastest run is the cheapest, so for each machine the settings are tried in the order of their time
and the first that fits is its plan. It fits when the likely estimate leaves a tenth of each GPU's memory free and the
host's RAM holds what is loaded and offloaded (`berth memory --for training` shows the terms).

The **front** is all plans that no other beats in both hours and dollars. **Recommended** is the cheapest that keeps
`--max-hours` and `--max-usd`, at the likely estimates; a note says when the slow end would not. Everything else has a
reason: the memory term that is too large and by how much, slower or dearer and by how much, over a limit, no price
under that way of paying, not offered, no bf16, host RAM short, no published throughput.

## Time and money

Boot, image, model download and loading as for serving (`sizing/start_up.csv`), warm-up, the steps, a loss over a part
of the examples after each epoch, and the checkpoint's upload. [training-time.md](training-time.md) has the constants,
their sources, and how far the estimate is from published times.

- On demand is billed by the second. Spot costs less and can be taken away at two minutes' notice; work done again is
  not counted. `--pay best` compares on demand, spot and Capacity Blocks.
- Capacity Blocks are paid up front by whole days: for a run of an hour, 24. Their known prices are old; the date is
  printed.
- Reserved machines and savings plans commit for years of 8,760 hours. For a run of hours they make no sense unless the
  commitment is held and kept busy anyway; asked for, the hours used are priced and the commitment is named.
- Machines only: storage, data transfer and taxes come on top.

## Data and lengths

`--data` is a number of examples or a .jsonl, .json, .csv, .tsv or .parquet file. Of a file, examples are counted and
the lengths of up to 2,000 of them are read: four characters a token, or exactly with `--tokenizer tokenizer.json`.
Memory must hold the longest example, time is spent on the average as padded to the longest of its micro-batch. Without
a file every example is as long as `--input-tokens` and `--output-tokens` say (or the task's usual counts, an assumption
that is printed). In a decoder-only model prompt and answer are one sequence.

`--context-window L` plans for examples of up to L tokens, beyond pretraining's window where positions allow it (rotary,
relative, ALiBi); that is said aloud, since quality must be tested. Learned positions end with the window.

## The files

`accelerate_config.yaml` (`accelerate launch --config_file`), `ds_config.json` (where ZeRO is used),
`training_arguments.json` (keyword arguments of `transformers.TrainingArguments`) and `training_plan.json` (method,
adapter, quantization, lengths, machine, and what was predicted, to hold a measured run against). Tests read them with
accelerate's, DeepSpeed's, transformers' and PEFT's own parsers. On several machines `--machine_rank`,
`--main_process_ip` and `--main_process_port` are added to `accelerate launch` on each.

## When nothing fits

One line with the nearest miss and, where there is one, the option that helps; exit code 2. With `--json` the document
is printed all the same, its `plan` null and every refusal in it.
"""
PHIL = "philschmid/deep-learning-pytorch-huggingface, training"


@dataclass(frozen=True)
class Case:
    """A published run and the same asked of the search. `hours` None: no time was published."""

    title: str
    model: str
    examples: int
    epochs: float
    tokens: tuple[int, int]
    batch: int
    wishes: dict[str, Any]
    published: str
    hours: float | None
    source: str
    remarks: tuple[str, ...] = field(default=())


CNN = "CNN/DailyMail, 287,113 examples, 3 epochs, padded to 500 and 129 tokens"
DOLLY = "15,011 examples at 160 tokens (assumed: the notebook does not say) packed into 1,172 sequences of 2,048"
CASES = (
    Case(
        "FLAN-T5-XL, full, 8 × A100-40",
        "google/flan-t5-xl",
        287_113,
        3,
        (500, 129),
        576,
        {"methods": ("full",), "instance": "p4d.24xlarge"},
        f"{CNN}; bf16, ZeRO-3, 72 a GPU: 2.5 h, about $81 (at $32.77 an hour)",
        2.5,
        f"{PHIL}/deepseed-flan-t5-summarization.ipynb",
        ("published hours contain an evaluation by beam search over 11,490 examples after each epoch",),
    ),
    Case(
        "FLAN-T5-XXL, full, 8 × A100-40",
        "google/flan-t5-xxl",
        287_113,
        3,
        (500, 129),
        64,
        {"methods": ("full",), "instance": "p4d.24xlarge"},
        f"{CNN}; bf16, ZeRO-3, no offload, 8 a GPU: 10 h, about $322 (at $32.77 an hour)",
        10.0,
        f"{PHIL}/deepseed-flan-t5-summarization.ipynb",
        ("published hours contain an evaluation by beam search over 11,490 examples after each epoch",),
    ),
    Case(
        "FLAN-T5-XXL, LoRA over LLM.int8, one A10G",
        "google/flan-t5-xxl",
        14_732,
        5,
        (255, 50),
        8,
        {"methods": ("lora",), "base_dtype": "int8", "instance": "g5.4xlarge"},
        "samsum, 14,732 examples, 5 epochs, 255 and 50 tokens; g5.2xlarge: 10.6 h, $13.22",
        10.6,
        f"{PHIL}/peft-flan-t5-int8-summarization.ipynb",
        (
            "published on g5.2xlarge with a copy of the model in fp16 shards; Google's own checkpoint is fp32, and "
            "reading it takes more than 32 GiB of host RAM, so the plan is for g5.4xlarge (the same GPU)",
        ),
    ),
    Case(
        "Llama-2-7B, QLoRA, one A10G",
        "meta-llama/Llama-2-7b-hf",
        1_172,
        3,
        (2048, 0),
        8,
        {"methods": ("qlora",), "instance": "g5.2xlarge"},
        f"dolly-15k, {DOLLY}, 3 epochs; g5.2xlarge: 3.13 h and $3.7 with eager attention (batch 4 × 2), 2.13 h and "
        "$2.6 with flash attention (6 × 2)",
        2.13,
        f"{PHIL}/instruction-tune-llama-2-int4.ipynb",
        ("the plan runs torch's scaled-dot-product attention, so it is held against the faster figure",),
    ),
    Case(
        "Llama-2-7B, QLoRA, one T4",
        "meta-llama/Llama-2-7b-hf",
        1_172,
        3,
        (2048, 0),
        8,
        {"methods": ("qlora",), "instance": "g4dn.2xlarge"},
        f"no published time with a token count is known; the same data as above: {DOLLY}, 3 epochs",
        None,
        "",
        ("a T4 has no bf16: fp16 with loss scaling", "the T4's speed is an assumption (training-time.md)"),
    ),
)


def render() -> str:
    """The page as text."""
    parts = [HEAD, "## Reference cases\n", _summary(), *(_case(c) for c in CASES), _shown()]
    return "\n".join(parts)


def found_for(case: Case, *, anywhere: bool = False) -> Plan:
    model = load_catalogue()[case.model]
    lengths = lengths_of(model, (), *case.tokens, None)
    wishes = {k: v for k, v in case.wishes.items() if not (anywhere and k == "instance")}
    task = TrainingTask(case.examples, lengths, case.epochs, case.batch)
    plan = search(model, task, load_hardware(), TrainingWishes(**wishes)).recommended
    if plan is None:
        raise SystemExit(f"{case.title}: no plan was found")
    return plan


def _summary() -> str:
    rows = [
        "| case | published | estimated steps alone | estimated run | estimated over published | cost of the run |",
        "|---|---|---|---|---|---|",
    ]
    for case in CASES:
        plan = found_for(case)
        steps = plan.time.training
        ratio = "" if case.hours is None else f"{steps.likely / 3600 / case.hours:.2f}"
        published = "none" if case.hours is None else f"{case.hours:g} h"
        rows.append(
            f"| {case.title} | {published} | {duration(steps.likely / 3600)} ({duration(steps.low / 3600)} to "
            f"{duration(steps.high / 3600)}) | {duration(plan.hours)} | {ratio} | ${plan.usd.likely:,.2f} |"
        )
    said = """\
The XL and XXL rows and that of LoRA over int8 gave the constants for encoder-decoder models; Llama-2's did not. Steps
can be faster than the published run's because the plan uses settings that the author did not: ZeRO-1 instead of 3, no
recomputation where memory allows. Published costs are of the prices of 2023; the p4d has been cheaper since June 2025.
"""
    return "\n".join(rows) + "\n\n" + said


def _case(case: Case) -> str:
    plan, best = found_for(case), found_for(case, anywhere=True)
    source = f" ({case.source})" if case.source else ""
    lines = [
        f"### {case.title}\n",
        f"- Published: {case.published}{source}.",
        f"- On that machine: {_told(plan)}.",
        f"- GPU memory {plan.memory.device.total_bytes / 2**30:.1f} GiB "
        f"({plan.memory.device.total('driver', 'low') / 2**30:.1f} to "
        f"{plan.memory.device.total('driver', 'high') / 2**30:.1f}), {plan.free_share:.0%} left free; host "
        f"{plan.memory.host.total_bytes / 2**30:.1f} GiB.",
        f"- Any machine: {_told(best)}.",
        *(f"- Note: {remark}." for remark in case.remarks),
        "",
    ]
    return "\n".join(lines)


def _told(plan: Plan) -> str:
    setup, gpu = plan.setup, plan.instance.gpu
    assumed = ", speed assumed" if plan.mfu.how == "assumed" else ""
    return (
        f"{plan.label} ({setup.gpus} × {gpu.name if gpu else '?'}{assumed}), {setup.precision}, {plan.strategy.label}, "
        f"micro-batch {setup.micro_batch} × {setup.gradient_accumulation_steps}, {plan.steps:,} steps of "
        f"{plan.time.step.total:.3g} s: {duration(plan.hours)} in all ({duration(plan.time.hours.low)} to "
        f"{duration(plan.time.hours.high)}), ${plan.usd.likely:,.2f}"
    )


def _shown() -> str:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "HF_HUB_OFFLINE": "1"}
    command = (sys.executable, "-m", "berth", *shlex.split(SHOWN))
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    text = "\n".join(line.rstrip() for line in ran.stdout.splitlines())
    return f"## As it is printed\n\n```text\n$ berth {SHOWN}\n{text}\n```\n"


def main() -> None:
    write_text(PAGE, render())


if __name__ == "__main__":
    main()
