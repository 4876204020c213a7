"""Models of no known family whose layers differ, and checkpoints that are published quantized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_files import LLAMA, Entries, tensors_of, write_model

from sizing.errors import UserError
from sizing.memory.engines import engine
from sizing.memory.inference import estimate_inference
from sizing.memory.kv_cache import cache_size
from sizing.memory.setup import InferenceSetup, published_dtype
from sizing.models.catalogue import load_catalogue
from sizing.models.facts import ModelFacts
from sizing.models.resolve import resolve_model

STRANGER: dict[str, Any] = LLAMA | {"model_type": "newcomer", "architectures": ["NewcomerForCausalLM"]}
PACKED: Entries = {"model.layers.0.self_attn.q_proj.qweight": ("I32", (8, 64)), "model.norm.weight": ("F16", (64,))}


def stranger(tmp_path: Path, **change: Any) -> ModelFacts:
    return resolve_model(str(write_model(tmp_path / "m", STRANGER | change, tensors_of(LLAMA))))


def cached(model: ModelFacts, tokens: int) -> float:
    return cache_size(model, engine("vllm"), batch=1, tokens=tokens, element_bytes=2).total


@pytest.mark.parametrize(
    "change",
    [
        {"layer_types": ["linear_attention", "full_attention", "linear_attention"]},
        {"layers_block_type": ["mamba", "attention", "mamba"]},
        {"hybrid_override_pattern": "M*-"},
        {"attn_layer_indices": [1]},
        {"full_attn_idxs": [2]},
        {"attn_layer_period": 3, "attn_layer_offset": 1},
    ],
    ids=lambda c: next(iter(c)),
)
def test_only_layers_that_attend_are_given_a_cache(change: dict[str, Any], tmp_path: Path) -> None:
    hybrid, plain = stranger(tmp_path / "a", **change), stranger(tmp_path / "b")

    assert cached(hybrid, 1000) == cached(plain, 1000) / 3
    assert "2 layers cache nothing" in hybrid.notes[0]


def test_layers_on_a_window_are_read(tmp_path: Path) -> None:
    found = stranger(
        tmp_path, layer_types=["sliding_attention", "sliding_attention", "full_attention"], sliding_window=64
    )

    assert {a.window: a.layers for a in found.main.attention} == {None: 1, 64: 2}


def test_a_latent_is_cached_in_place_of_heads(tmp_path: Path) -> None:
    found = stranger(tmp_path, kv_lora_rank=32, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=16)

    assert cached(found, 100) == 3 * 100 * (32 + 8) * 2
    assert estimate_inference(found, InferenceSetup()).device.total_bytes > 0


def test_kinds_of_another_number_of_layers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="kinds of 2 layers are named, 'num_hidden_layers' is 3"):
        stranger(tmp_path, layer_types=["full_attention"] * 2)


def group(kind: str, bits: int) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"weights": {"type": kind, "num_bits": bits}}},
    }


@pytest.mark.parametrize(
    ("quantization", "dtype"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq-int4"),
        ({"quant_method": "awq"}, "awq-int4"),
        ({"quant_method": "fp8"}, "fp8"),
        (group("int", 4), "gptq-int4"),
        (group("float", 8), "fp8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "nf4"),
    ],
)
def test_as_published_means_as_quantized(quantization: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    config = LLAMA | {"quantization_config": quantization}

    assert published_dtype(resolve_model(str(write_model(tmp_path / "m", config, PACKED)))) == dtype


def test_a_format_without_figures_is_taken_as_bf16_and_said(tmp_path: Path) -> None:
    config = LLAMA | {"quantization_config": group("float", 4)}
    found = resolve_model(str(write_model(tmp_path / "m", config, PACKED)))

    assert published_dtype(found) == "bf16"
    assert any("which Berth has no figures for: bf16 is taken instead" in note for note in found.notes)


def test_a_packed_stranger_is_refused(tmp_path: Path) -> None:
    config = STRANGER | {"quantization_config": {"quant_method": "gptq", "bits": 4}}

    with pytest.raises(UserError, match=r"packed weights \(gptq-int4\) do not tell a model's shape"):
        resolve_model(str(write_model(tmp_path / "m", config, PACKED)))


def test_gpt_oss_as_published_keeps_all_but_its_experts_in_16_bit() -> None:
    """openai/gpt-oss-20b: 12.8 GiB of safetensors (arXiv:2508.10925, table 1: "Checkpoint Size")."""
    found = estimate_inference(load_catalogue()["openai/gpt-oss-20b"], InferenceSetup(dtype="mxfp4", engine="vllm"))
    weights = found.device.bytes_of(("weights", "quantization constants", "weights kept in 16 bit"))

    assert weights / 2**30 == pytest.approx(12.8, abs=0.05)
    with pytest.raises(UserError, match="stores a mixture's experts, and Qwen/Qwen3-8B has none"):
        estimate_inference(load_catalogue()["Qwen/Qwen3-8B"], InferenceSetup(dtype="mxfp4"))
