"""What rows about fine-tuning have in common: the model, the card, the batch, the lengths, and whether it fitted."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from sizing.accuracy.inference_cases import model_of as model_by_letters
from sizing.accuracy.points import Point
from sizing.memory.training.setup import TrainingSetup
from sizing.models.catalogue import load_catalogue
from sizing.models.facts import ModelFacts
from sizing.units import MIB

MODELS: dict[str, str] = {
    "phi-1.5": "microsoft/phi-1_5",
    "Falcon": "tiiuae/falcon-40b",
    "Falcon-180B": "tiiuae/falcon-180B",
    "Qwen-1.8B": "Qwen/Qwen-1_8B",
    "Qwen-7B": "Qwen/Qwen-7B",
    "Qwen-14B": "Qwen/Qwen-14B",
    "Qwen-72B": "Qwen/Qwen-72B",
    "Llama-3.2-3B": "meta-llama/Llama-3.2-3B",
    "Llama-70B": "meta-llama/Llama-2-70b-hf",
    "Llama-2-70B": "meta-llama/Llama-2-70b-hf",
    "Llama-2-70b-chat": "meta-llama/Llama-2-70b-hf",
    "Llama-2-7B": "meta-llama/Llama-2-7b-hf",
    "Llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "llama-7b": "meta-llama/Llama-2-7b-hf",
    "Llama-3-70B": "meta-llama/Meta-Llama-3-70B",
    "Llama-3.1-8B": "meta-llama/Llama-3.1-8B",
    "Llama-3.1-70B": "meta-llama/Llama-3.1-70B",
    "Llama-3-8B": "meta-llama/Meta-Llama-3-8B",
    "Qwen3-8B": "Qwen/Qwen3-8B",
    "Qwen3-4B": "Qwen/Qwen3-4B",
    "DeepSeek-R1-0528-Qwen3-8B": "Qwen/Qwen3-8B",
    "SmolLM2-360M": "HuggingFaceTB/SmolLM2-360M",
    "Mistral-7B-v0.3": "mistralai/Mistral-7B-v0.3",
    "gemma-1.1-2b-it": "google/gemma-1.1-2b-it",
    "FLAN-T5-XL": "google/flan-t5-xl",
    "FLAN-T5-XXL": "google/flan-t5-xxl",
    "facebook/bart-large (doc log)": "facebook/bart-large",
    "deberta-v2-xlarge-mnli": "microsoft/deberta-v2-xlarge",
    "blenderbot-400M-distill": "facebook/blenderbot-400M-distill",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
}
"""The name in a row -> the catalogue's."""

CARDS: tuple[tuple[str, float], ...] = (
    # nvidia-smi's total.
    (r"A100.*80GB", 81_920 * MIB),
    (r"A100.*40GB", 40_960 * MIB),
    (r"H100-80GB", 81_559 * MIB),
    (r"A10G", 23_028 * MIB),
    (r"T4", 15_360 * MIB),
    (r"V100-16GB", 16_160 * MIB),
    (r"A40-48GB", 46_068 * MIB),
    (r"A6000", 49_140 * MIB),
    (r"RTX (3090|4090)|A5000-24GB|Titan RTX 24GB", 24_564 * MIB),
)
"""GPU of a row (pattern) -> bytes that its driver leaves."""

Metric = Literal["allocated", "reserved", "driver", "host", "process", "layer", "fits"]
"""process: resident memory of the training processes alone, as psutil sees it; host: the machine's."""


@dataclass(frozen=True, slots=True)
class Case:
    """What to estimate for a point: the model, the run, which figure, and in which unit (bytes)."""

    model: ModelFacts
    setup: TrainingSetup
    metric: Metric
    unit_bytes: float = 1.0
    devices: int = 1
    """The measured value is the sum over this many GPUs."""
    capacity_bytes: float = 0.0
    fits: bool | None = None
    host_bytes: float = 0.0
    """RAM of the machine, where the row's instance is known: the run has to fit there, too."""
    note: str = ""


Reader = Callable[[Point, ModelFacts], "Case | str"]
RAN = ("s/iter", "tokens/s", "hours", "minutes", "s", "tokens/s/GPU")
"""Units of rows about time: on a known card they still say that the run fitted."""
COSTS = ("USD", "GPU-hours", "% MFU", "minutes (est. by author)")


def model_of(point: Point) -> ModelFacts | None:
    """The catalogue's model that the row names; else by the first letters of its name and its parameters."""
    found = load_catalogue().find(MODELS.get(point.model, point.model))
    return found if found is not None else model_by_letters(point)


def capacity_of(point: Point) -> float:
    """Bytes of the row's GPU, 0 where they are not known."""
    return next((size for pattern, size in CARDS if re.search(pattern, point.gpu_type)), 0.0)


def batch_of(point: Point) -> int | None:
    match = re.fullmatch(r"(\d+)(?: \(.*\))?", point.batch)
    return int(match.group(1)) if match else None


def tokens_of(point: Point) -> int | None:
    match = re.match(r"(?:src)?(?:<= ?)?(\d+)", point.seq_len)
    return int(match.group(1)) if match else None


def sized(point: Point) -> dict[str, Any] | str:
    """Batch, length and GPUs as the row gives them."""
    batch, tokens = batch_of(point), tokens_of(point)
    if not batch:
        return "the row does not say the batch size"
    if not tokens:
        return "the row does not say the sequence length"
    return {"micro_batch": batch, "input_tokens": tokens, "gpus": point.gpu_count}


def offloads(point: Point) -> bool:
    """Whether the row's method says that something is offloaded (not `offload=no`, `no offload`, `offload=none`)."""
    return "offload" in point.method and not re.search(r"offload=no|no offload", point.method)


def trainable_of(point: Point) -> int | None:
    match = re.search(r"trainable=([\d,]+)", point.setting)
    return int(match.group(1).replace(",", "")) if match else None


def rank_for(model: ModelFacts, setup: TrainingSetup, trained: int) -> int:
    """The LoRA rank that gives `trained` elements over the targets of `setup`."""
    from sizing.memory.training.trained import adapters

    each = sum(a.numel for a in adapters(model, replace(setup, lora_rank=1)))
    return max(1, round(trained / each))


def about_fitting(point: Point, model: ModelFacts, setup: TrainingSetup, note: str = "") -> Case | str:
    capacity = capacity_of(point)
    if not capacity:
        return "the row does not say which GPU"
    return Case(model, setup, "fits", capacity_bytes=capacity, fits=point.measured_value != "OOM", note=note)


# Sources
