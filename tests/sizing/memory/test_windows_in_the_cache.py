"""What layers with a window keep, by engine: during the prompt, after it, and in a cache of fixed size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizing.memory.engines import ENGINES, engine
from sizing.memory.inference import estimate_inference
from sizing.memory.kv_cache import cache_size
from sizing.memory.setup import InferenceSetup
from sizing.models.catalogue import load_catalogue

GEMMA = load_catalogue()["google/gemma-3-27b-it"]
A_TOKEN = 16 * (128 + 128) * 2
"""Bytes that a layer of it keeps of a token: 16 key-value heads of 128, keys and values, in 16 bit."""


def cached(name: str, tokens: int, *, whole_prompt: bool = False) -> float:
    return cache_size(
        GEMMA, engine(name), batch=1, tokens=tokens, element_bytes=2, whole_prompt=whole_prompt
    ).self_attention


def test_after_the_prompt_sliding_layers_keep_their_window() -> None:
    expected = (10 * 32_768 + 52 * 1024) * A_TOKEN

    assert cached("transformers", 32_768) == expected
    assert cached("vllm", 32_768) == expected


def test_during_the_prompt_transformers_keeps_all_of_it_in_every_layer() -> None:
    """`DynamicSlidingWindowLayer.update` keeps a view of the whole."""
    assert cached("transformers", 32_768, whole_prompt=True) == 62 * 32_768 * A_TOKEN
    assert cached("vllm", 32_768, whole_prompt=True) == cached("vllm", 32_768)


def test_the_peak_of_a_long_prompt_counts_it_whole() -> None:
    found = estimate_inference(GEMMA, InferenceSetup(input_tokens=32_768, output_tokens=16)).device["KV cache"]

    assert found.bytes == 62 * 32_768 * A_TOKEN
    assert found.formula.count("32,768 tokens") == 2


@given(st.sampled_from(sorted(ENGINES)), st.integers(1, 100_000), st.integers(1, 1000), st.booleans())
def test_more_tokens_never_need_a_smaller_cache(name: str, tokens: int, more: int, whole: bool) -> None:
    assert cached(name, tokens, whole_prompt=whole) <= cached(name, tokens + more, whole_prompt=whole)
    assert cached(name, tokens) <= cached(name, tokens, whole_prompt=True)


@pytest.mark.parametrize("name", ["litgpt", "autoawq"])
def test_a_cache_of_fixed_size_has_room_for_every_token(name: str) -> None:
    heads = 2 if engine(name).expands_kv else 1
    assert cached(name, 4096) == 62 * 4096 * A_TOKEN * heads
