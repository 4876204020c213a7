"""What a pre-flight step took, written as a measurement beside what sizing had estimated for it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model_runtime.training.models import Prepared
from model_runtime.training.plan import RunPlan, name_of
from model_runtime.training.settings import FinetuneSettings
from model_runtime.verify.measurement import machine, write_measurement
from sizing.errors import UserError

FILE = "measurement.json"
FORMAT = "berth-training-measurement/1"


def measure(
    output: Path,
    settings: FinetuneSettings,
    plan: RunPlan,
    folder: Path,
    prepared: Prepared,
    *,
    input_tokens: int,
    output_tokens: int,
    peak: dict[str, int],
    step_s: float,
) -> Path:
    """Write `output/measurement.json`. Bytes are those of the process that took most; tokens of the longest batch."""
    estimate = _estimate(folder, settings, plan, prepared, input_tokens, output_tokens)
    document = {
        "format": FORMAT,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "run": {
            "model": name_of(settings, plan),
            "method": settings.method,
            "precision": prepared.precision,
            "micro_batch_size": plan.micro_batch,
            "gradient_accumulation_steps": plan.accumulation,
            "processes": plan.processes,
            "zero_stage": plan.zero_stage,
            "checkpointing": settings.gradient_checkpointing,
            "attention": str(plan.details.get("attn_implementation") or settings.attention),
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "packing": settings.packing,
        },
        "measured": {
            "gpu_allocated_bytes": peak["allocated_bytes"] or None,
            "gpu_reserved_bytes": peak["reserved_bytes"] or None,
            "resident_bytes": peak["resident_bytes"],
            "step_s": round(step_s, 4),
        },
        "estimate": estimate,
        "planned": plan.details.get("predicted"),
    }
    write_measurement(document, output / FILE)
    return output / FILE


def _estimate(
    folder: Path, settings: FinetuneSettings, plan: RunPlan, prepared: Prepared, input_tokens: int, output_tokens: int
) -> dict[str, Any]:
    """sizing's estimate for exactly what ran, or why there is none."""
    from sizing.memory.training.estimate import estimate_training
    from sizing.memory.training.setup import TrainingSetup
    from sizing.models.resolve import resolve_model

    zero = (plan.deepspeed or {}).get("zero_optimization", {})
    offload = "all" if "offload_param" in zero else "optimizer" if "offload_optimizer" in zero else "none"
    attention = str(plan.details.get("attn_implementation") or settings.attention)
    try:
        setup = TrainingSetup(
            method=settings.method,  # type: ignore[arg-type]
            precision=prepared.precision,  # type: ignore[arg-type]
            micro_batch=plan.micro_batch,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            gpus=plan.processes,
            gpus_per_node=max(1, plan.processes // plan.nodes),
            zero_stage=plan.zero_stage,
            offload=offload,  # type: ignore[arg-type]
            checkpointing=settings.gradient_checkpointing,
            attention="flash" if attention.startswith("flash") else attention,  # type: ignore[arg-type]
            lora_rank=settings.lora_rank,
            lora_targets=settings.lora_targets,
            lora_dropout=settings.lora_dropout,
            gradient_accumulation_steps=plan.accumulation,
            backend="cuda" if prepared.device.kind == "cuda" else "cpu",
            padded=True,
        )
        found = estimate_training(resolve_model(str(folder)), setup)
    except UserError as error:
        return {"device": None, "why": str(error)}
    return {"device": found.device.to_json(), "why": None}
