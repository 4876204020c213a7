"""The estimate of a run: its terms, how it moves with what is asked, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizing.errors import UserError
from sizing.memory.training.estimate import estimate_training, kept_bytes, needed_bytes
from sizing.memory.training.setup import TrainingSetup
from sizing.models.catalogue import load_catalogue
from sizing.models.read import facts_from_config

CATALOGUE = load_catalogue()
T5, LLAMA = CATALOGUE["google/flan-t5-base"], CATALOGUE["meta-llama/Llama-3.2-3B"]
MODELS = (T5, LLAMA, CATALOGUE["openai-community/gpt2"], CATALOGUE["google-bert/bert-base-uncased"])
GIB = 1 << 30


def setup_for(model, **asked):
    target = 64 if model.architecture == "encoder-decoder" else 0
    return TrainingSetup(**{"input_tokens": 256, "output_tokens": target, "micro_batch": 2, **asked})


setups = st.builds(
    lambda method, precision, optimizer, batch, tokens, gpus, stage, offload, ckpt, attention, accumulation: dict(  # noqa: C408
        method=method,
        precision=precision,
        optimizer=optimizer,
        micro_batch=batch,
        input_tokens=tokens,
        gpus=gpus,
        zero_stage=stage,
        offload="none" if stage == 0 else ("optimizer" if offload == "all" and stage != 3 else offload),
        checkpointing=ckpt,
        attention=attention,
        gradient_accumulation_steps=accumulation,
    ),
    st.sampled_from(["full", "lora", "prompt"]),
    st.sampled_from(["bf16", "fp16", "fp32", "pure-bf16"]),
    st.sampled_from(["adamw", "adamw8bit", "adafactor", "sgd", "lion"]),
    st.integers(1, 8),
    st.integers(1, 512),
    st.sampled_from([1, 2, 8]),
    st.integers(0, 3),
    st.sampled_from(["none", "optimizer", "all"]),
    st.booleans(),
    st.sampled_from(["eager", "sdpa", "flash"]),
    st.sampled_from([1, 4]),
)


@given(st.sampled_from(MODELS), setups)
def test_the_terms_add_up_and_nothing_is_negative(model, asked):
    device = estimate_training(model, setup_for(model, **asked)).device
    assert all(t.low <= t.bytes <= t.high and t.bytes >= 0 for t in device.terms)
    assert device.total_bytes == sum(t.bytes for t in device.terms)
    assert device.total("allocated") <= device.total("reserved") <= device.total("driver")
    assert device.total("driver", "low") <= device.total_bytes <= device.total("driver", "high")
    assert len({t.name for t in device.terms}) == len(device.terms)


@given(st.sampled_from(MODELS), setups, st.integers(1, 4))
def test_more_work_never_takes_less(model, asked, more):
    base = setup_for(model, **asked)
    here = estimate_training(model, base)
    for larger in (
        replace(base, micro_batch=base.micro_batch + more),
        replace(base, input_tokens=base.input_tokens + 16 * more),
        replace(base, gradient_accumulation_steps=base.gradient_accumulation_steps + more),
    ):
        there = estimate_training(model, larger)
        assert there.device.total_bytes >= here.device.total_bytes
        assert there.host.total_bytes >= here.host.total_bytes


@given(st.sampled_from(MODELS), setups)
def test_checkpointing_never_keeps_more(model, asked):
    plain = setup_for(model, **{**asked, "checkpointing": False})
    assert kept_bytes(model, replace(plain, checkpointing=True)) <= kept_bytes(model, plain) * 1.001


@pytest.mark.parametrize("gpus", [2, 4, 8, 64])
@pytest.mark.parametrize("model", [T5, LLAMA], ids=["t5", "llama"])
def test_zero_divides_what_its_paper_says(model, gpus):
    """arXiv:1910.02054, figure 1: 2P + 2P + 12P, divided stage by stage."""
    p = model.params
    for stage, weights, gradients in ((1, 2 * p, 2 * p), (2, 2 * p, 2 * p / gpus), (3, 2 * p / gpus, 2 * p / gpus)):
        device = estimate_training(model, setup_for(model, gpus=gpus, zero_stage=stage, micro_batch=1)).device
        assert device["weights"].bytes == pytest.approx(weights, rel=1e-6)
        assert device["master weights"].bytes == pytest.approx(4 * p / gpus, rel=1e-6)
        assert device["optimizer states"].bytes == pytest.approx(8 * p / gpus, rel=1e-6)
        if stage == 3:
            assert device["gradients"].bytes >= int(gradients)


def test_each_method_takes_less_than_the_one_above():
    totals = [
        estimate_training(LLAMA, setup_for(LLAMA, method=method)).device.total_bytes
        for method in ("full", "lora", "qlora")
    ]
    assert totals == sorted(totals, reverse=True)


def test_mixed_precision_is_autocast_alone_and_16_bit_weights_under_deepspeed():
    alone = estimate_training(LLAMA, setup_for(LLAMA))
    sharded = estimate_training(LLAMA, setup_for(LLAMA, gpus=8, zero_stage=2))
    assert alone.device["weights"].bytes == 4 * LLAMA.params
    assert "autocast" in alone.assumptions["precision"]
    assert sharded.device["weights"].bytes == 2 * LLAMA.params
    assert "ZeRO-2 over 8 GPUs" in sharded.assumptions["strategy"]


def test_ddp_copies_the_gradients_into_buckets():
    device = estimate_training(T5, setup_for(T5, gpus=2)).device
    assert device["DDP buckets"].bytes == 4 * T5.params


def test_offloaded_states_leave_the_gpu_and_stand_on_the_host():
    kept = estimate_training(T5, setup_for(T5, gpus=2, zero_stage=2))
    moved = estimate_training(T5, setup_for(T5, gpus=2, zero_stage=2, offload="optimizer"))
    assert moved.device["optimizer states"].bytes == moved.device["master weights"].bytes == 0
    assert moved.device.total_bytes < kept.device.total_bytes
    running = {t.name: t for t in moved.host.terms}
    assert running["optimizer states"].bytes == pytest.approx(8 * T5.params, rel=1e-6)
    # Two ranks of 4P/2 each, in pinned memory that comes in powers of two.
    assert running["master weights"].bytes == 2 * 2 ** math.ceil(math.log2(4 * T5.params / 2))
    assert running["master weights"].low == pytest.approx(4 * T5.params, rel=1e-6)


def test_every_rank_loads_the_model_unless_zero_init_spares_it():
    one = estimate_training(T5, setup_for(T5, loading="plain")).host
    eight = estimate_training(T5, setup_for(T5, loading="plain", gpus=8)).host
    spared = estimate_training(T5, setup_for(T5, loading="plain", gpus=8, zero_stage=3)).host
    built = "weights, built model"
    assert eight[built].bytes == 8 * one[built].bytes
    assert spared[built].bytes <= one[built].bytes


def test_a_model_loaded_before_zero_init_stands_whole_on_every_gpu_at_first():
    xxl = CATALOGUE["google/flan-t5-xxl"]
    run = setup_for(xxl, gpus=4, zero_stage=3, offload="all", checkpointing=True, micro_batch=1)
    late = estimate_training(xxl, replace(run, zero_init=False))
    assert late.device.total("allocated") >= 2 * xxl.params > estimate_training(xxl, run).device.total("allocated")
    assert late.assumptions["peak"] == "DeepSpeed's initialization"


def test_tensor_parallelism_divides_weights_heads_and_mlp():
    whole = estimate_training(LLAMA, setup_for(LLAMA, gpus=1, micro_batch=32)).device
    half = estimate_training(LLAMA, setup_for(LLAMA, gpus=2, tensor_parallel=2, micro_batch=32)).device
    assert 0.5 * whole["weights"].bytes <= half["weights"].bytes < 0.51 * whole["weights"].bytes
    assert half["activations, decoder layers"].bytes < 0.75 * whole["activations, decoder layers"].bytes


def test_encoder_decoder_and_cross_attention_stand_apart():
    device = estimate_training(T5, setup_for(T5, attention="eager", micro_batch=16)).device
    names = {t.name for t in device.terms if t.bytes}
    assert {
        "activations, encoder layers",
        "activations, decoder layers",
        "attention scores, encoder",
        "attention scores, decoder",
        "cross-attention scores, decoder",
        "logits and loss",
    } <= names


def test_what_is_gone_by_the_peak_is_named_all_the_same():
    estimate = estimate_training(
        LLAMA, setup_for(LLAMA, precision="pure-bf16", micro_batch=1, optimizer_kernel="foreach")
    )
    assert estimate.assumptions["peak"] == "the optimizer's step"
    activations = estimate.device["activations, decoder layers"]
    assert activations.bytes == 0
    assert "none at the peak" in activations.formula
    assert "GiB in the" in activations.formula


def test_quantized_weights_keep_embeddings_norms_and_head():
    device = estimate_training(LLAMA, setup_for(LLAMA, method="qlora")).device
    linear = sum(t.numel for t in LLAMA.tensors if t.kind == "linear" and t.layered)
    assert device["weights"].bytes == pytest.approx(linear / 2, rel=1e-6)
    assert device["weights kept unquantized"].bytes == 4 * (LLAMA.params - linear)
    assert device["quantization constants"].bytes == pytest.approx(linear * (1 / 64 + 4 / (64 * 256)), rel=1e-6)


def test_deepspeeds_default_buckets_are_a_billion_elements():
    run = setup_for(T5, gpus=2, zero_stage=2, micro_batch=32)
    small = estimate_training(T5, replace(run, buckets="auto")).device
    large = estimate_training(T5, replace(run, buckets="default")).device
    assert small["reduce buckets"].bytes == 2 * 768 * 768 * 2
    assert large["reduce buckets"].bytes == 2 * 5 * 10**8 * 2


def test_paged_states_are_not_torchs_and_can_leave():
    paged = estimate_training(T5, setup_for(T5, optimizer="adamw8bit", paged_optimizer=True))
    states = paged.device["optimizer states"]
    assert states.metric == "driver"
    assert states.low == 0
    assert needed_bytes(paged) < paged.device.total_bytes - states.bytes + 1


def test_what_cannot_be_run_is_refused_in_one_line():
    for model, asked, words in (
        (LLAMA, {"output_tokens": 5}, "output-tokens"),
        (LLAMA, {"tensor_parallel": 5, "gpus": 5}, "attention heads"),
        (LLAMA, {"method": "lora", "lora_targets": ("nowhere",)}, "no linear layer called nowhere"),
        (CATALOGUE["openai/gpt-3.5-turbo"], {}, "no published weights"),
        (LLAMA, {"method": "qlora", "gpus": 2, "zero_stage": 3, "offload": "all"}, "does not offload quantized"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            estimate_training(model, TrainingSetup(**{"input_tokens": 16, **asked}))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"micro_batch": 0}, "micro-batch is 0"),
        ({"micro_batch": 10**9}, "at most"),
        ({"micro_batch": True}, "whole number"),
        ({"input_tokens": -1}, "input-tokens is -1"),
        ({"zero_stage": 4}, "zero is 4"),
        ({"offload": "optimizer"}, "needs ZeRO"),
        ({"offload": "all", "zero_stage": 2}, "--zero 3"),
        ({"gpus": 3, "tensor_parallel": 2}, "groups of 2"),
        ({"optimizer": "sophia"}, "optimizer is 'sophia'; allowed: adamw"),
        ({"lora_dropout": 1.0}, "probability"),
    ],
)
def test_a_setup_names_what_is_wrong(asked, words):
    with pytest.raises(UserError, match=words):
        TrainingSetup(**asked)


def test_the_rule_of_thumb_is_sixteen_bytes_a_parameter():
    assert estimate_training(T5, setup_for(T5)).rule_of_thumb.total_bytes == 16 * T5.params


def test_a_model_read_from_a_config_of_its_own_is_estimated_alike():
    config = {**CATALOGUE.configs["google/flan-t5-base"]}
    own = estimate_training(facts_from_config(config, name="mine"), setup_for(T5))
    assert own.device.total_bytes == estimate_training(T5, setup_for(T5)).device.total_bytes
