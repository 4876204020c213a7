"""What a run hands over: the model in safetensors, its tokenizer, the adapter, and everything that says how it came."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model_runtime.artifacts import delete_folder
from model_runtime.data.dataset import DataSet
from model_runtime.data.split import FILE as SPLIT
from model_runtime.errors import ModelError
from model_runtime.manifest import NAME, sha256_of, write_manifest
from model_runtime.training.card import model_card
from model_runtime.training.measure import FILE as MEASUREMENT
from model_runtime.training.metrics import FILE as METRICS
from model_runtime.training.metrics import loss_curve, read_metrics
from model_runtime.training.models import Prepared
from model_runtime.training.plan import RunPlan, name_of
from model_runtime.training.settings import FinetuneSettings
from model_runtime.versions import versions_of

FOLDER = "artifact"
MODEL, ADAPTER, RECORD, CARD = "model", "adapter", "training.json", "README.md"
_PACKAGES = (
    "torch", "transformers", "accelerate", "deepspeed", "peft", "bitsandbytes", "safetensors", "tokenizers", "berth",
)  # fmt: skip


def write_artifact(
    trainer: Any,
    prepared: Prepared,
    settings: FinetuneSettings,
    plan: RunPlan,
    data: DataSet,
    base: Path,
    output: Path,
    rank: int,
    say: Callable[[str], None],
) -> Path:
    """Write `output/artifact`, its manifest last. All processes call it: sharded weights are gathered from them."""
    target = output / FOLDER
    draft = output / f".{FOLDER}.draft"
    if rank == 0:
        shutil.rmtree(draft, ignore_errors=True)
    adapted = settings.method != "full"
    trainer.save_model(str(draft / (ADAPTER if adapted else MODEL)))
    if rank != 0:
        return target
    (draft / (ADAPTER if adapted else MODEL) / "training_args.bin").unlink(missing_ok=True)  # a pickle
    if adapted:
        say("merging the adapter into the base model")
        _merge(base, draft / ADAPTER, draft / MODEL, prepared, settings)
    prepared.tokenizer.save_pretrained(draft / MODEL)
    config = draft / MODEL / "config.json"
    if not config.is_file() or not any((draft / MODEL).glob("*.safetensors")):
        raise ModelError(
            f"{draft / MODEL} holds no whole model; with ZeRO-3 the plan must gather the weights "
            "(stage3_gather_16bit_weights_on_model_save)"
        )
    _restore_cache(draft / MODEL)
    for name in (METRICS, MEASUREMENT, SPLIT):
        if (output / name).is_file():
            shutil.copyfile(output / name, draft / name)
    record = _record(trainer, prepared, settings, plan, data, base)
    record["curve"] = loss_curve(read_metrics(output / METRICS) if (output / METRICS).is_file() else [])
    (draft / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (draft / CARD).write_text(model_card(record), encoding="utf-8")
    write_manifest(draft / MODEL)  # a host fetches the model's folder alone
    write_manifest(draft)
    if target.exists():
        delete_folder(target)
    draft.replace(target)
    say(f"the artifact is in {target}; SHA-256 of its manifest {sha256_of(target / NAME)}")
    return target


def _merge(base: Path, adapter: Path, target: Path, prepared: Prepared, settings: FinetuneSettings) -> None:
    """The adapter added to the base's weights, unquantized, on the CPU."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

    from model_runtime.precision import torch_dtype

    auto = {
        "encoder-only": AutoModelForSequenceClassification,
        "decoder-only": AutoModelForCausalLM,
        "encoder-decoder": AutoModelForSeq2SeqLM,
    }[prepared.architecture]
    config = copy.deepcopy(prepared.model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = auto.from_pretrained(
        base,
        config=config,
        dtype=torch_dtype("fp32" if prepared.precision == "fp32" else prepared.precision),
        use_safetensors=not settings.allow_pickle or any(base.glob("*.safetensors")),
        ignore_mismatched_sizes=True,
    )
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.save_pretrained(target)


def _restore_cache(folder: Path) -> None:
    """Training turns the key-value cache off; a model that serves wants it."""
    for name in ("config.json", "generation_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.get("use_cache") is False:
            found["use_cache"] = True
            path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _record(
    trainer: Any, prepared: Prepared, settings: FinetuneSettings, plan: RunPlan, data: DataSet, base: Path
) -> dict[str, Any]:
    """How the model came to be, as JSON."""
    state = trainer.state
    losses = [line["loss"] for line in state.log_history if "loss" in line]
    name = name_of(settings, plan)
    licence, reason = licence_of(name, settings.licence)
    return {
        "format": "berth-training/1",
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": {
            "model": name,
            "config_sha256": sha256_of(base / "config.json"),
            "licence": licence,
            "licence_note": reason,
        },
        "architecture": prepared.architecture,
        "method": settings.method,
        "precision": prepared.precision,
        "settings": settings.to_json(),
        "plan": {
            "micro_batch_size": plan.micro_batch,
            "gradient_accumulation_steps": plan.accumulation,
            "processes": plan.processes,
            "nodes": plan.nodes,
            "global_batch": plan.global_batch,
            "arguments": plan.arguments,
            "deepspeed": plan.deepspeed_config(),
            "details": plan.details,
        },
        "data": {
            "form": data.form,
            "sha256": data.hashes,
            "parts": {name: len(part) for name, part in data.parts.items()},
            "split_seed": None if data.split is None else data.split.seed,
        },
        "tokens": {"input": prepared.max_input, "target": prepared.max_target},
        "prompt": settings.prompt,
        "rate": settings.rate,
        "result": {
            "steps": state.global_step,
            "epochs": round(float(state.epoch or 0.0), 4),
            "last_loss": losses[-1] if losses else None,
            "best_validation_loss": state.best_metric,
            "best_step": state.best_global_step or None,
        },
        "versions": versions_of(_PACKAGES),
    }


def licence_of(name: str, said: str) -> tuple[str, str]:
    """The base model's licence and where that is from: what is `said`, else the catalogue's; "unknown" without."""
    from sizing.errors import UserError
    from sizing.models.resolve import resolve_model

    if said:
        return said, "as the settings say"
    try:
        facts = resolve_model(name)
    except UserError:
        return "unknown", "the catalogue does not know the model; give licence in the settings"
    if facts.licence == "unknown":
        return "unknown", "the model's folder does not say; give licence in the settings"
    return facts.licence, facts.licence_reason
