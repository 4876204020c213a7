"""Measurement files for tests: what `berth verify --report` writes, made from an estimate and changed as asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from model_runtime.verify.start import PARTS, start_up_of
from sizing.hardware.load import load_hardware
from sizing.measured.memory import split
from sizing.memory.inference import estimate_inference
from sizing.memory.setup import InferenceSetup
from sizing.memory.terms import Breakdown
from sizing.models.catalogue import load_catalogue
from sizing.throughput.device import Device, device_of
from sizing.throughput.roofline import Asked, speed_at
from sizing.throughput.work import work_of

HARDWARE = load_hardware()
CATALOGUE = load_catalogue()
LABELS = {"g4dn.2xlarge": "Tesla T4", "g5.2xlarge": "NVIDIA A10G", "g6.2xlarge": "NVIDIA L4"}
Change = Callable[[int], int]


def estimate(model: str, dtype: str, batch: int, tokens: tuple[int, int]) -> Breakdown:
    setup = InferenceSetup(dtype=dtype, batch=batch, input_tokens=tokens[0], output_tokens=tokens[1])
    return estimate_inference(CATALOGUE[model], setup).device


def document(
    model: str = "google/flan-t5-xl",
    machine: str = "g4dn.2xlarge",
    dtype: str = "fp32",
    *,
    batches: Sequence[int] = (1, 2, 4),
    tokens: tuple[int, int] = (512, 128),
    more: Callable[[int], int] = lambda _: 0,
    slower: float = 1.0,
    failed: Sequence[int] = (),
    cpu: bool = False,
) -> dict[str, Any]:
    """A Measurement equal to the estimate, `more(batch)` bytes above it in allocated memory, `slower` times as slow."""
    instance = HARDWARE.instance(machine)
    device = device_of(instance)
    assert isinstance(device, Device)
    assert instance.gpu is not None
    work, asked = work_of(CATALOGUE[model], dtype), Asked(dtype, "transformers", *tokens)
    weights = 0
    tried: list[dict[str, Any]] = []
    for batch in batches:
        found = estimate(model, dtype, batch, tokens)
        weights = split(found.terms)["weights"]
        seconds = slower * speed_at(work, asked, device, batch).total
        sizes = {"peak_bytes": found.total("allocated") + more(batch), "before_bytes": weights}
        if not cpu:
            sizes |= {f"{m}_bytes": found.total(m) + more(batch) for m in ("reserved", "driver")}
        tried.append({"batch": batch, "seconds": seconds, **sizes})
    tried += [{"batch": batch, "out_of_memory": True, "why": "CUDA out of memory"} for batch in failed]
    gpus = [{"name": LABELS[machine], "memory_bytes": instance.gpu.memory_bytes, "compute_capability": 7.5}]
    spread = {"median": 1.0, "min": 1.0, "max": 1.0, "relative": 0.0, "runs": [1.0]}
    phase = {
        "requests": 1, "failed": {}, "seconds": 1.0, "requests_per_s": 1.0, "output_tokens_per_s": 1.0,
        "latency_s": None, "first_token_s": None, "input_tokens": None, "output_tokens": None,
    }  # fmt: skip
    points = {f"{name}_p{p}": None for name in ("latency_s", "first_token_s") for p in (50, 90, 99)}
    step = {
        "concurrency": 1, "output_tokens_per_s": spread, "requests_per_s": spread, "failed": 0, "runs": [phase],
        **points,
    }  # fmt: skip
    return {
        "format": "berth-measurement/1",
        "measured_at": "2026-11-24T09:00:00+00:00",
        "command": "berth verify folder",
        "target": "folder",
        "machine": {
            "cpu": "a processor", "cores": 8, "threads": 4, "memory_bytes": 2**35, "gpus": [] if cpu else gpus,
            "instance_type": None if cpu else machine, "system": "Linux", "python": "3.11",
            "versions": {"transformers": "5.23.0"},
        },
        "model": {
            "name": model.rsplit("/", 1)[-1], "source": model, "architecture": CATALOGUE[model].architecture,
            "dtype": dtype, "device": "cpu" if cpu else LABELS[machine], "context_window": 512,
            "weights_bytes": weights,
        },
        "settings": {"model": model, "batch_size": 4, "tensor_parallel_degree": 1, "quantize": ""},
        "start_up": start_up_of([dict.fromkeys(PARTS, 1.0) | {"downloaded_bytes": 0}]),
        "largest_batch": {
            "batch": max(batches, default=0), "why": "", "limit": 256, "latency_wish_s": None, "tried": tried,
            "process_starts": 1, "input_tokens": tokens[0], "output_tokens": tokens[1],
        },
        "memory": None,
        "workload": {
            "prompts": 1, "output_tokens": tokens[1], "parameters": {}, "latency_wish_s": None, "source": "made",
        },
        "sweep": [step],
        "best_concurrency": 1,
        "open_loop": {"rate_per_s": 1.0, **phase},
        "memory_splits": None,
        "verdicts": [],
    }  # fmt: skip


def written(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
