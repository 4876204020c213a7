"""Inference memory: what always holds of it, and the figures that are known exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizing.dtypes import DTYPES
from sizing.errors import UserError
from sizing.memory.engines import ENGINES
from sizing.memory.inference import estimate_inference, largest_batch
from sizing.memory.setup import InferenceSetup
from sizing.memory.terms import METRICS
from sizing.models.catalogue import load_catalogue
from sizing.models.facts import ModelFacts
from sizing.models.read import facts_from_config
from sizing.units import GIB, MIB

NAMES = [n for n, entry in load_catalogue().entries.items() if entry.deployable]
ANY_MODEL = st.sampled_from(NAMES).map(lambda name: load_catalogue()[name])
ANY_SETUP = st.builds(
    InferenceSetup,
    # What stores experts alone is refused for models that have none.
    dtype=st.sampled_from(sorted(name for name, kind in DTYPES.items() if not kind.experts_only)),
    batch=st.integers(1, 64),
    input_tokens=st.integers(1, 16_384),
    output_tokens=st.integers(0, 4096),
    engine=st.sampled_from(sorted(ENGINES)),
    attention=st.sampled_from(["eager", "sdpa", "flash"]),
)
MANY = settings(max_examples=120, deadline=None)


def device(model: ModelFacts, setup: InferenceSetup, metric: str = "driver") -> int:
    return estimate_inference(model, setup).device.total(metric)  # type: ignore[arg-type]


def totals(model: ModelFacts, setup: InferenceSetup) -> list[int]:
    """Every total that a reader may compare: by metric, and at both ends of the range."""
    found = estimate_inference(model, setup).device
    return [found.total(metric, bound) for metric in METRICS for bound in ("low", "bytes", "high")]


@MANY
@given(ANY_MODEL, ANY_SETUP)
def test_every_term_is_a_finite_ordered_figure(model: ModelFacts, setup: InferenceSetup) -> None:
    estimate = estimate_inference(model, setup)
    for t in (*estimate.device.terms, *estimate.host.terms):
        assert 0 <= t.low <= t.bytes <= t.high
        assert t.formula
    totals = [estimate.device.total(m) for m in METRICS]
    assert totals == sorted(totals)
    assert len({t.name for t in estimate.device.terms}) == len(estimate.device.terms)
    json.dumps(estimate.to_json(), allow_nan=False)


@MANY
@given(ANY_MODEL, ANY_SETUP, st.integers(1, 32), st.integers(1, 4096), st.integers(1, 512))
def test_memory_never_falls_when_more_is_asked(
    model: ModelFacts, setup: InferenceSetup, more_batch: int, more_input: int, more_output: int
) -> None:
    base = totals(model, setup)
    for more in (
        replace(setup, batch=setup.batch + more_batch),
        replace(setup, input_tokens=setup.input_tokens + more_input),
        replace(setup, output_tokens=setup.output_tokens + more_output),
    ):
        assert all(after >= before for before, after in zip(base, totals(model, more), strict=True)), more


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        # The prompt's pass makes the peak at first, the cache later: what the first left in the allocator stays.
        ("EleutherAI/pythia-12b", {"input_tokens": 8924, "output_tokens": 1363}, {"output_tokens": 1499}),
        # A window that is full: a longer prompt takes none of the room that the answer's tokens grow into.
        ("microsoft/Phi-3-medium-4k-instruct", {"input_tokens": 75, "output_tokens": 2848}, {"input_tokens": 106}),
    ],
)
def test_memory_does_not_fall_where_another_phase_becomes_the_largest(
    name: str, before: dict[str, int], after: dict[str, int]
) -> None:
    setup = InferenceSetup(dtype="fp8", batch=39, **before)  # type: ignore[arg-type]
    model = load_catalogue()[name]
    assert device(model, replace(setup, **after)) >= device(model, setup)  # type: ignore[arg-type]


@MANY
@given(ANY_MODEL, ANY_SETUP)
def test_fewer_bits_never_take_more(model: ModelFacts, setup: InferenceSetup) -> None:
    """Of transformers as it is today; GPT-J of 4.3x held fp32 copies beside fp16 scores."""
    held = [totals(model, replace(setup, dtype=dtype, engine="transformers")) for dtype in ("int8", "fp16", "fp32")]
    for fewer, more in pairwise(held):
        assert all(a <= b for a, b in zip(fewer, more, strict=True))


SHAPES = st.sampled_from(
    [
        {
            "model_type": "llama", "hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8,
            "num_key_value_heads": 2, "intermediate_size": 1024, "vocab_size": 8000,
        },
        {
            "model_type": "t5", "d_model": 512, "num_layers": 4, "num_decoder_layers": 4, "num_heads": 8, "d_kv": 64,
            "d_ff": 1024, "vocab_size": 8000, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
        },
        {
            "model_type": "bert", "hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8,
            "intermediate_size": 1024, "vocab_size": 8000, "max_position_embeddings": 16_384,
        },
    ]
)  # fmt: skip


@MANY
@given(SHAPES, ANY_SETUP, st.integers(2, 5), st.data())
def test_memory_never_falls_when_parameters_grow(
    shape: dict[str, Any], setup: InferenceSetup, times: int, data: st.DataObject
) -> None:
    grown = data.draw(
        st.sampled_from([k for k, v in shape.items() if (isinstance(v, int) and v > 64) or "layers" in k])
    )
    small = facts_from_config(shape, name="small")
    large = facts_from_config(shape | {grown: shape[grown] * times}, name="large")
    assert large.params > small.params
    assert all(a <= b for a, b in zip(totals(small, setup), totals(large, setup), strict=True)), grown


@MANY
@given(ANY_MODEL, ANY_SETUP)
def test_fewer_bits_never_take_more_weights(model: ModelFacts, setup: InferenceSetup) -> None:
    def weights(dtype: str) -> int:
        names = ("weights", "weights kept in fp32", "weights kept in 16 bit", "quantization constants")
        return estimate_inference(model, replace(setup, dtype=dtype)).device.bytes_of(names)

    assert weights("nf4-dq") <= weights("nf4") <= weights("int8") <= weights("fp16") <= weights("fp32")
    assert device(model, replace(setup, dtype="int8")) <= device(model, replace(setup, dtype="fp32"))


@MANY
@given(ANY_MODEL, ANY_SETUP, st.sampled_from([2, 4, 8]))
def test_more_devices_never_need_more_each(model: ModelFacts, setup: InferenceSetup, devices: int) -> None:
    if any(stack.heads % devices for stack in model.stacks):
        with pytest.raises(UserError, match="cannot be split"):
            estimate_inference(model, replace(setup, tensor_parallel=devices))
        return
    one = device(model, setup, "allocated")
    assert device(model, replace(setup, tensor_parallel=devices), "allocated") <= one


def test_the_reference_model_fits_a_t4_in_fp32() -> None:
    xl = load_catalogue()["google/flan-t5-xl"]
    estimate = estimate_inference(xl, InferenceSetup(dtype="fp32"))
    assert estimate.device["weights"].bytes == 2_849_757_184 * 4
    assert estimate.device.total_bytes < 15_360 * MIB
    assert estimate.rule_of_thumb.total_bytes == pytest.approx(2_849_757_184 * 4 * 1.2, abs=1)


def test_t5_keeps_wo_in_fp32_under_fp16_and_int8() -> None:
    """bitsandbytes issue #111: t5-3b in int8 is 5,300,543,488 bytes with wo in fp32, row scales aside."""
    t5 = load_catalogue()["google-t5/t5-3b"]
    device_terms = estimate_inference(t5, InferenceSetup(dtype="int8")).device
    names = ("weights", "weights kept in fp32", "weights kept in 16 bit")
    assert device_terms.bytes_of(names) == 5_300_543_488
    wo = 48 * 16_384 * 1024 * 4
    assert device_terms["weights kept in fp32"].bytes == wo
    assert estimate_inference(t5, InferenceSetup(dtype="fp16")).device["weights kept in fp32"].bytes == wo
    assert "weights kept in fp32" not in {
        t.name for t in estimate_inference(t5, InferenceSetup(dtype="bf16")).device.terms
    }


def test_int8_is_shown_with_its_claim_and_with_what_that_leaves_out() -> None:
    notes = estimate_inference(load_catalogue()["google/flan-t5-xl"], InferenceSetup(dtype="int8")).device.notes
    claim = next(n for n in notes if "LLM.int8" in n)
    assert "-75 % against fp32" in claim and "-50 % against fp16" in claim
    assert "-61 % and -21 %" in claim
    assert "weights kept in fp32 1.88 GiB" in claim


def test_kv_cache_of_grouped_heads_is_163840_bytes_a_token() -> None:
    """vLLM's log for Mistral-Small-24B: 40 layers × 8 kv heads × 128 × 2 × 2 bytes."""
    mistral = facts_from_config(
        {
            "model_type": "mistral", "hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 32,
            "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 32_768, "vocab_size": 131_072,
        },
        name="mistral-24b",
    )  # fmt: skip
    cache = estimate_inference(mistral, InferenceSetup(batch=4, input_tokens=1, output_tokens=999)).device["KV cache"]
    assert cache.bytes == 4 * 1000 * 163_840


def test_a_sliding_window_caps_the_cache() -> None:
    base = {
        "model_type": "mistral", "hidden_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 8,
        "intermediate_size": 4096, "vocab_size": 32_000,
    }  # fmt: skip
    windowed = facts_from_config(base | {"sliding_window": 1024}, name="w")
    whole = facts_from_config(base | {"sliding_window": None}, name="m")
    long = InferenceSetup(input_tokens=1, output_tokens=8191)
    ratio = (
        estimate_inference(whole, long).device["KV cache"].bytes
        / estimate_inference(windowed, long).device["KV cache"].bytes
    )
    assert ratio == 8


def test_cross_attention_caches_the_input_in_every_decoder_layer() -> None:
    xl = load_catalogue()["google/flan-t5-xl"]
    terms = estimate_inference(xl, InferenceSetup(dtype="fp32", batch=3, input_tokens=500, output_tokens=20)).device
    assert terms["KV cache, cross-attention"].bytes == 3 * 500 * 24 * 2 * 32 * 64 * 4
    assert terms["KV cache"].bytes == 3 * 21 * 24 * 2 * 32 * 64 * 4


def test_tensor_parallel_keeps_at_least_one_kv_head_each() -> None:
    llama = load_catalogue()["meta-llama/Llama-2-70b-hf"]
    cache = [
        estimate_inference(llama, InferenceSetup(tensor_parallel=n, input_tokens=1000)).device["KV cache"].bytes
        for n in (1, 8, 16)
    ]
    assert cache[0] == 8 * cache[1]
    assert cache[1] == cache[2]


@pytest.mark.parametrize("capacity_gib", [14, 22, 40, 80])
def test_the_largest_batch_fits_and_one_more_does_not(capacity_gib: int) -> None:
    llama = load_catalogue()["meta-llama/Llama-2-7b-hf"]
    setup = InferenceSetup(dtype="fp16", input_tokens=512, output_tokens=256)
    best = largest_batch(llama, setup, capacity_gib * GIB)
    if best:
        assert device(llama, setup.with_batch(best)) <= capacity_gib * GIB
    assert device(llama, setup.with_batch(best + 1)) > capacity_gib * GIB


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("batch", 0, "batch is 0"),
        ("batch", -3, "batch is -3"),
        ("batch", 10**9, "no machine serves above"),
        ("input_tokens", 0, "input-tokens is 0"),
        ("output_tokens", -1, "output-tokens is -1"),
        ("tensor_parallel", 0, "tensor-parallel is 0"),
        ("tensor_parallel", 4096, "at most 1024"),
    ],
)
def test_absurd_numbers_are_refused_by_name(field: str, value: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        InferenceSetup(**{field: value})


def test_unknown_names_are_refused_with_what_is_allowed() -> None:
    model = load_catalogue()["google/flan-t5-small"]
    with pytest.raises(UserError, match=r"unknown dtype 'fp12'.*allowed"):
        estimate_inference(model, InferenceSetup(dtype="fp12"))
    with pytest.raises(UserError, match="unknown engine 'tgi'"):
        estimate_inference(model, InferenceSetup(engine="tgi"))


def test_more_tokens_than_the_context_window_is_said() -> None:
    xl = load_catalogue()["google/flan-t5-xl"]
    notes = estimate_inference(xl, InferenceSetup(input_tokens=4000)).device.notes
    assert any("exceed the context window of 512" in n for n in notes)
