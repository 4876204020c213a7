"""A layer's activations against the published formula, and what changes them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizing.memory.training.dialects import Dialect, dialect_of
from sizing.memory.training.layers import layer_footprint
from sizing.memory.training.recipe import Recipe
from sizing.models.catalogue import load_catalogue
from sizing.models.facts import AttentionLayers, Stack

GPT = Dialect(qkv=("c_attn",), out="c_proj", up="c_fc", down="c_proj", softmax="same", activation="gelu")
SIXTEEN = Recipe(weights=2, kept=2, stream=2, kernel="eager")
STATISTICS = 2 * 2 * 4
"""Two norms keep a mean and a deviation a row in fp32, which the paper leaves out."""


def gpt_layer(hidden: int, heads: int, dropout: float = 0.1) -> Stack:
    return Stack(
        layers=1,
        hidden_size=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        intermediate_size=4 * hidden,
        gated=False,
        attention=(AttentionLayers(1, heads, hidden // heads, hidden // heads),),
        dropout=dropout,
        attention_dropout=dropout,
    )


@given(st.integers(1, 4), st.integers(1, 64), st.sampled_from([(64, 4), (128, 2), (96, 8)]))
def test_a_gpt_layer_keeps_what_korthikanti_et_al_count(batch, tokens, shape):
    """arXiv:2205.05198, equation 1: s·b·h·(34 + 5·a·s/h) bytes in 16 bit."""
    hidden, heads = shape
    found = layer_footprint(gpt_layer(hidden, heads), GPT, SIXTEEN, batch, tokens)
    rows = batch * tokens
    assert found.saved_bytes == rows * hidden * 34 + 5 * heads * tokens * rows + rows * STATISTICS
    assert found.saved["attention scores"] == 5 * heads * tokens * rows


@given(st.integers(1, 4), st.integers(1, 64), st.sampled_from([1, 2, 4]))
def test_tensor_parallelism_divides_what_the_paper_says(batch, tokens, degree):
    """Equation 2: s·b·h·(10 + 24/t + 5·a·s/(h·t))."""
    hidden, heads = 64, 4
    found = layer_footprint(gpt_layer(hidden, heads), GPT, replace(SIXTEEN, shard=degree), batch, tokens)
    rows = batch * tokens
    assert (
        found.saved_bytes
        == rows * hidden * (10 + 24 // degree) + 5 * heads // degree * tokens * rows + rows * STATISTICS
    )


def test_a_fused_kernel_keeps_no_scores():
    stack = gpt_layer(64, 4)
    fused = layer_footprint(stack, GPT, replace(SIXTEEN, kernel="flash"), 2, 128)
    rows = 2 * 128
    # Query, key, value and output instead of copies for matmul, and one fp32 log-sum-exp a head and row.
    assert fused.saved["attention scores"] == 4 * rows * 4
    assert fused.saved["activations"] == rows * 64 * 34 + rows * STATISTICS


def test_full_checkpointing_costs_a_layer_its_input_and_one_recomputation():
    from sizing.memory.training.passes import step_of

    model = load_catalogue()["openai-community/gpt2"]
    recipe = Recipe(weights=2, kept=2, stream=2, kernel="eager")
    plain = step_of(model, recipe, 2, 64, 0)
    checkpointed = step_of(model, recipe, 2, 64, 0, checkpointing=True)
    layers = next(s for s in checkpointed.segments if s.name == "decoder")
    assert layers.kept == {"activations": 2 * 64 * 768 * 2}
    one = next(s for s in plain.segments if s.name == "decoder")
    assert layers.behind >= one.kept_bytes + layers.kept_bytes


def test_frozen_layers_keep_far_less_than_trained_ones():
    model = load_catalogue()["meta-llama/Llama-3.2-3B"]
    stack, dialect = model.main, dialect_of(model)
    trained = layer_footprint(stack, dialect, replace(SIXTEEN, kernel="flash"), 1, 1024)
    frozen = layer_footprint(stack, dialect, replace(SIXTEEN, kernel="flash", full=False, norms_trained=False), 1, 1024)
    assert frozen.saved_bytes < 0.7 * trained.saved_bytes
    assert frozen.weight_grads == 0


def test_the_first_frozen_layer_keeps_next_to_nothing():
    model = load_catalogue()["meta-llama/Llama-3.2-3B"]
    stack, dialect = model.main, dialect_of(model)
    frozen = replace(SIXTEEN, kernel="flash", full=False, norms_trained=False)
    assert layer_footprint(stack, dialect, frozen, 1, 1024, input_grad=False).saved_bytes == 0


@pytest.mark.parametrize("name", sorted(load_catalogue()))
def test_every_model_of_the_catalogue_has_a_layer(name):
    model = load_catalogue()[name]
    if not model.tensors:
        pytest.skip("closed: no shape is published")
    dialect = dialect_of(model)
    for stack in model.stacks:
        source = 64 if stack.cross_attention else 0
        small = layer_footprint(stack, dialect, SIXTEEN, 1, 64, source, moe=stack.experts > 0)
        large = layer_footprint(stack, dialect, SIXTEEN, 2, 64, source, moe=stack.experts > 0)
        assert 0 < small.saved_bytes < large.saved_bytes
        assert small.weight_grads == large.weight_grads > 0


def test_every_weight_of_a_layer_gets_a_gradient():
    """The names and widths of the layer programs are those of the model's tensors."""
    catalogue = load_catalogue()
    for name in ("google/flan-t5-base", "meta-llama/Llama-3.2-3B", "openai-community/gpt2", "facebook/bart-base"):
        model = catalogue[name]
        for part, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
            if stack is None:
                continue
            source = 16 if stack.cross_attention and model.encoder is not None else 0
            made = layer_footprint(stack, dialect_of(model), SIXTEEN, 1, 16, source).weight_grads
            biases = sum(t.numel for t in model.tensors if t.layered and t.part == part and t.kind == "bias")
            there = sum(t.numel for t in model.tensors if t.layered and t.part == part) - biases
            assert made == pytest.approx(2 * there / stack.layers, rel=1e-3), (name, part)
