"""Shapes that memory estimates read: heads, windows, experts, positions, and how parameters grow."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_files import LLAMA

from sizing.models.catalogue import load_catalogue
from sizing.models.facts import AttentionLayers
from sizing.models.read import facts_from_config, layout_of

CATALOGUE = load_catalogue()


def attention(name: str) -> tuple[AttentionLayers, ...]:
    return CATALOGUE[name].main.attention


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mistralai/Mistral-7B-v0.1", {4096: 32}),
        ("mistralai/Mistral-7B-Instruct-v0.2", {None: 32}),
        ("mistralai/Mixtral-8x7B-v0.1", {None: 32}),
        ("google/gemma-2b", {None: 18}),
        ("google/gemma-2-9b-it", {None: 21, 4096: 21}),
        ("google/gemma-3-1b-it", {None: 4, 512: 22}),
        ("google/gemma-3-27b-it", {None: 10, 1024: 52}),
        ("openai/gpt-oss-20b", {None: 12, 128: 12}),
        ("microsoft/Phi-3-mini-4k-instruct", {2047: 32}),
        ("Qwen/Qwen2.5-7B-Instruct", {None: 28}),
        ("Qwen/Qwen3-8B", {None: 36}),
    ],
)
def test_which_layers_see_a_window(name: str, expected: dict[int | None, int]) -> None:
    assert {a.window: a.layers for a in attention(name)} == expected


@pytest.mark.parametrize(
    ("name", "kv_heads", "head_dim"),
    [
        ("meta-llama/Llama-2-7b-hf", 32, 128),
        ("meta-llama/Llama-2-70b-hf", 8, 128),
        ("tiiuae/falcon-7b", 1, 64),
        ("tiiuae/falcon-40b", 8, 64),
        ("bigcode/octocoder", 1, 128),
        ("google/gemma-2b", 1, 256),
        ("Qwen/Qwen3-0.6B", 8, 128),
        ("google-t5/t5-3b", 32, 128),
        ("google/flan-t5-xxl", 64, 64),
        ("mistralai/Mistral-Small-24B-Instruct-2501", 8, 128),
    ],
)
def test_key_value_heads_and_their_size(name: str, kv_heads: int, head_dim: int) -> None:
    stack = CATALOGUE[name].main

    assert (stack.kv_heads, stack.head_dim) == (kv_heads, head_dim)
    assert {(a.kv_heads, a.key_dim, a.value_dim) for a in stack.attention} == {(kv_heads, head_dim, head_dim)}


def test_a_24b_mistral_caches_163_840_bytes_a_token_in_16_bits() -> None:
    """As vLLM reports it for Mistral-Small-24B."""
    facts = CATALOGUE.find("mistral-24b")
    assert facts is not None
    cached = sum(a.layers * a.kv_heads * (a.key_dim + a.value_dim) for a in facts.main.attention)

    assert 2 * cached == 163_840


def test_latent_attention_caches_one_latent_and_one_rotary_key() -> None:
    assert attention("deepseek-ai/DeepSeek-V2-Lite-Chat") == (AttentionLayers(27, 1, 512 + 64, 0),)


def test_xlnet_remembers_hidden_states() -> None:
    assert attention("xlnet/xlnet-base-cased") == (AttentionLayers(12, 12, 64, 0),)


@pytest.mark.parametrize(
    ("name", "parallel"),
    [
        ("EleutherAI/gpt-j-6b", True),
        ("EleutherAI/gpt-neox-20b", True),
        ("tiiuae/falcon-7b", True),
        ("microsoft/phi-2", True),
        ("bigscience/bloom-7b1", False),
        ("facebook/opt-13b", False),
        ("meta-llama/Llama-2-7b-hf", False),
    ],
)
def test_attention_and_mlp_side_by_side(name: str, parallel: bool) -> None:
    assert CATALOGUE[name].main.parallel_residual is parallel


@pytest.mark.parametrize(
    ("name", "position", "norm", "gated"),
    [
        ("openai-community/gpt2", "learned", "layernorm", False),
        ("bigscience/bloom", "alibi", "layernorm", False),
        ("mosaicml/mpt-7b", "alibi", "layernorm", False),
        ("google/flan-t5-xl", "relative", "rmsnorm", True),
        ("google-t5/t5-3b", "relative", "rmsnorm", False),
        ("google/pegasus-xsum", "sinusoidal", "layernorm", False),
        ("facebook/bart-large", "learned", "layernorm", False),
        ("google-bert/bert-base-uncased", "learned", "layernorm", False),
        ("microsoft/deberta-v3-base", "relative", "layernorm", False),
        ("Qwen/Qwen-7B", "rotary", "rmsnorm", True),
    ],
)
def test_positions_norms_and_gates(name: str, position: str, norm: str, gated: bool) -> None:
    stack = CATALOGUE[name].main

    assert (stack.position, stack.norm, stack.gated) == (position, norm, gated)


def test_a_mixture_passes_only_the_experts_chosen() -> None:
    mixtral = CATALOGUE["mistralai/Mixtral-8x7B-v0.1"]
    stack = mixtral.main

    assert (stack.experts, stack.experts_per_token, stack.intermediate_size) == (8, 2, 2 * 14336)
    assert mixtral.active_params == 12_879_925_248  # arXiv:2401.04088: "only uses 13B active parameters"
    assert CATALOGUE["Qwen/Qwen3-30B-A3B"].active_params == pytest.approx(3.3e9, rel=0.03)
    assert CATALOGUE["Qwen/Qwen3-235B-A22B"].active_params == pytest.approx(22e9, rel=0.02)


def test_qwens_first_generation_counts_both_halves_of_its_mlp() -> None:
    assert CATALOGUE["Qwen/Qwen-7B"].main.intermediate_size == 22016 // 2


def test_roberta_spends_two_rows_of_its_table_on_padding() -> None:
    assert CATALOGUE["FacebookAI/roberta-base"].context_window == 512


@pytest.mark.parametrize(
    ("name", "linear"),
    [
        # 12 layers of 12 * 768^2; embeddings and the tied output layer are no weights of their own.
        ("openai-community/gpt2", 12 * 12 * 768**2),
        # q, k, v, o and three MLP matrices a layer, and the output layer.
        ("meta-llama/Llama-2-7b-hf", 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 32000 * 4096),
        ("google-t5/t5-3b", 24 * (4 + 8) * 1024 * 4096 + 48 * 2 * 1024 * 16384),
    ],
)
def test_what_a_quantizer_would_turn(name: str, linear: int) -> None:
    assert CATALOGUE[name].numel(lambda t: t.kind == "linear") == linear


def test_sliding_of_qwen2_starts_at_a_layer_when_it_is_switched_on() -> None:
    config = LLAMA | {"model_type": "qwen2", "sliding_window": 64, "max_window_layers": 1}

    off = facts_from_config(config, name="x").main.attention
    on = facts_from_config(config | {"use_sliding_window": True}, name="x").main.attention

    assert {a.window: a.layers for a in off} == {None: 3}
    assert {a.window: a.layers for a in on} == {None: 1, 64: 2}


def test_a_mistral_config_that_does_not_mention_its_window_has_transformers_default() -> None:
    silent = facts_from_config(LLAMA | {"model_type": "mistral"}, name="x")
    none = facts_from_config(LLAMA | {"model_type": "mistral", "sliding_window": None}, name="x")

    assert [a.window for a in silent.main.attention] == [4096]
    assert [a.window for a in none.main.attention] == [None]


sizes = st.integers(1, 40)


@given(
    layers=sizes, heads=sizes, groups=st.integers(1, 8), head_dim=sizes, ff=sizes, vocab=sizes,
    grown=st.sampled_from(["num_hidden_layers", "intermediate_size", "vocab_size", "head_dim"]),
)  # fmt: skip
def test_more_of_anything_is_more_parameters(
    layers: int, heads: int, groups: int, head_dim: int, ff: int, vocab: int, grown: str
) -> None:
    config: dict[str, Any] = LLAMA | {
        "num_hidden_layers": layers,
        "num_attention_heads": heads * groups,
        "num_key_value_heads": heads,
        "hidden_size": heads * groups * head_dim,
        "head_dim": head_dim,
        "intermediate_size": ff,
        "vocab_size": vocab,
    }
    layout, larger = layout_of(config), layout_of(config | {grown: config[grown] + 1})

    assert larger.params > layout.params
    assert all(t.count > 0 and all(size > 0 for size in t.shape) for t in layout.tensors)
