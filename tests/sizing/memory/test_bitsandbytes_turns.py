"""Quantized bytes against the layers that transformers' bitsandbytes integration really makes, on the meta device."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from sizing.dtypes import dtype
from sizing.memory.engines import engine
from sizing.memory.inference import estimate_inference
from sizing.memory.setup import InferenceSetup
from sizing.memory.training.estimate import estimate_training
from sizing.memory.training.setup import TrainingSetup
from sizing.memory.weights import weight_terms
from sizing.models.catalogue import load_catalogue
from sizing.models.read import facts_from_config

SMALL: dict[str, Any] = {
    "hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 512, "vocab_size": 1000,
}  # fmt: skip
CONFIGS: list[dict[str, Any]] = [
    {"model_type": "llama", **SMALL},
    {"model_type": "gpt2", "n_embd": 256, "n_layer": 3, "n_head": 4, "vocab_size": 1000},
    {"model_type": "falcon", "hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 1000},
    {"model_type": "mixtral", **SMALL, "num_local_experts": 4, "num_experts_per_tok": 2},
    {"model_type": "qwen2_moe", **SMALL, "moe_intermediate_size": 128, "num_experts": 4, "num_experts_per_tok": 2,
     "shared_expert_intermediate_size": 192},
    {"model_type": "qwen3_moe", **SMALL, "head_dim": 64, "moe_intermediate_size": 128, "num_experts": 4,
     "num_experts_per_tok": 2},
    {"model_type": "gpt_oss", **SMALL, "head_dim": 64, "num_local_experts": 4, "num_experts_per_tok": 2},
    {"model_type": "deepseek_v2", **SMALL, "num_key_value_heads": 4, "moe_intermediate_size": 128,
     "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1,
     "kv_lora_rank": 64,
     "q_lora_rank": None, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32, "v_head_dim": 32},
]  # fmt: skip


def really(config: dict[str, Any], kind: str) -> float:
    """Bytes of the model as the integration loads it: what it turned, and the rest in 16 bit."""
    from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    import bitsandbytes as bnb
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers.auto import AutoHfQuantizer

    given = dict(config)
    made = AutoConfig.for_model(given.pop("model_type"), **given)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(made)
    asked = BitsAndBytesConfig(load_in_4bit=kind == "nf4", load_in_8bit=kind == "int8", bnb_4bit_quant_type="nf4")
    kept = AutoHfQuantizer.from_config(asked).get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    replace_with_bnb_linear(model, kept, asked)
    turned = {
        id(m.weight): (m.out_features, m.in_features)
        for m in model.modules()
        if isinstance(m, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt)
    }
    total = 0.0
    for parameter in model.parameters():
        if id(parameter) in turned:
            rows, columns = turned[id(parameter)]
            total += rows * columns * 0.5625 if kind == "nf4" else rows * columns + 4 * rows
        else:
            total += 2 * parameter.numel()
    return total


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c["model_type"])
def test_what_is_said_to_be_quantized_is_what_bitsandbytes_turns(config: dict[str, Any], kind: str) -> None:
    facts = facts_from_config(config, name="small")
    said = sum(t.bytes for t in weight_terms(facts, dtype(kind), engine("transformers")))

    assert said == pytest.approx(really(config, kind), abs=8)


def test_a_mixture_in_nf4_says_that_its_experts_stay_in_16_bit() -> None:
    mixtral = load_catalogue()["mistralai/Mixtral-8x7B-v0.1"]
    found = estimate_inference(mixtral, InferenceSetup(dtype="nf4")).device

    assert found["weights kept in 16 bit"].bytes > 80 * 2**30
    assert any("turns nn.Linear layers alone" in note for note in found.notes)
    # What was quantized before it is loaded, and engines with kernels of their own, hold all of it in 4 bit.
    for other in (InferenceSetup(dtype="awq-int4"), InferenceSetup(dtype="nf4", engine="transformers-4.3x")):
        assert estimate_inference(mixtral, other).device.total("allocated") < 30 * 2**30


def test_qlora_of_a_mixture_holds_the_experts_whole() -> None:
    """`prepare_model_for_kbit_training` makes fp32 of all that bitsandbytes left."""
    mixtral = load_catalogue()["mistralai/Mixtral-8x7B-v0.1"]
    setup = TrainingSetup(method="qlora", checkpointing=True)
    device = estimate_training(mixtral, setup).device

    assert device["weights kept unquantized"].bytes > 4 * 45e9
    assert any("bitsandbytes turns nn.Linear layers alone: 45.1B" in note for note in device.notes)
    assert not any("bitsandbytes" in n for n in estimate_training(mixtral, TrainingSetup(method="lora")).device.notes)
