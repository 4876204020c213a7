"""The cheaper machine that leaner loading would open: it is the one chosen for that way, it fits, it costs less."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sizing.choose import Choice, choose
from sizing.choosing.fit import Memories
from sizing.choosing.leaner import LEAST_SAVING_USD
from sizing.choosing.wishes import Wishes
from sizing.hardware.load import load_hardware
from sizing.memory.loading import LOADING_WAYS
from sizing.models.catalogue import load_catalogue
from sizing.workload import Workload

HARDWARE = load_hardware()
CATALOGUE = load_catalogue()
MODELS = (
    "google/flan-t5-small",
    "google/flan-t5-xl",
    "google/flan-t5-xxl",
    "mistralai/Mistral-7B-Instruct-v0.2",
    "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-2-13b-hf",
    "mistralai/Mixtral-8x7B-v0.1",
)


def size(model: str, work: Workload | None = None, **wishes: Any) -> Choice:
    return choose(CATALOGUE[model], work or Workload(), HARDWARE, Wishes(**wishes))


def test_the_reference_case_keeps_its_machine_and_names_the_cheaper_one() -> None:
    choice = size("google/flan-t5-xl", dtype="fp32")
    assert choice.chosen is not None and choice.leaner is not None
    assert choice.chosen.instance.name == "g4dn.2xlarge"
    assert (choice.leaner.instance_type, choice.leaner.loading) == ("g4dn.xlarge", "mmap")
    assert choice.leaner.saves_usd_per_month == pytest.approx((0.752 - 0.526) * 730)


def test_a_model_of_16_gb_in_bf16_fits_32_gib_when_it_is_mapped() -> None:
    choice = size("meta-llama/Llama-3.1-8B")
    assert choice.chosen is not None and choice.leaner is not None
    assert (choice.chosen.instance.name, choice.leaner.instance_type) == ("g6.4xlarge", "g6.2xlarge")
    assert "g6.2xlarge (L4, bf16)" in choice.leaner.line
    assert "--loading mmap" in choice.leaner.line and "safetensors" in choice.leaner.line


@pytest.mark.parametrize("loading", ["mmap", "convert"])
def test_nothing_is_leaner_than_mapped_weights(loading: str) -> None:
    assert size("meta-llama/Llama-3.1-8B", loading=loading).leaner is None


def test_a_model_whose_ram_was_never_the_bar_has_no_cheaper_machine() -> None:
    assert size("google/flan-t5-small").leaner is None


works = st.builds(Workload, input_tokens=st.integers(1, 2048), output_tokens=st.integers(1, 512),
                  batch=st.integers(1, 32))  # fmt: skip
loads = st.builds(
    Workload,
    input_tokens=st.integers(1, 1024),
    output_tokens=st.integers(1, 256),
    requests_per_day=st.floats(1, 1e6),
    latency_s=st.one_of(st.none(), st.floats(0.2, 60)),
    hours_per_day=st.floats(1, 24),
)
wishes_ = st.builds(
    Wishes,
    dtype=st.sampled_from(["auto", "fp32", "fp16", "bf16", "int8", "nf4"]),
    region=st.sampled_from(["us-east-1", "eu-west-1", "any"]),
    pay=st.sampled_from(["on-demand", "reserved-1y", "spot", "best"]),
    max_gpus=st.sampled_from([1, 4, 8]),
    loading=st.sampled_from(sorted(LOADING_WAYS)),
    engine=st.just("transformers"),
)


@settings(max_examples=60)
@given(model=st.sampled_from(MODELS), work=st.one_of(works, loads), wishes=wishes_)
def test_the_cheaper_machine_is_the_choice_for_that_way_and_never_dearer(
    model: str, work: Workload, wishes: Wishes
) -> None:
    facts = CATALOGUE[model]
    choice = choose(facts, work, HARDWARE, wishes)
    assume(choice.chosen is not None)
    assert choice.chosen is not None
    lean = choose(facts, work, HARDWARE, replace(wishes, loading="mmap"))
    found, best = choice.leaner, lean.chosen
    if found is None:
        assert best is None or best.usd_per_month > choice.chosen.usd_per_month - LEAST_SAVING_USD
        return
    assert best is not None
    assert found.usd_per_month == pytest.approx(best.usd_per_month)
    assert found.usd_per_month < choice.chosen.usd_per_month
    assert found.saves_usd_per_month == pytest.approx(choice.chosen.usd_per_month - found.usd_per_month)
    assert (found.instance_type, found.dtype, found.hosts) == (
        best.instance.name,
        best.serving.dtype,
        best.serving.hosts,
    )
    assert found.host_bytes <= found.usable_bytes
    gpu = HARDWARE.instance(found.instance_type).gpu
    assert gpu is not None
    memories = Memories(facts, work, "mmap", wishes.engine)
    assert memories.fits(best.serving.dtype, best.serving.gpus_per_copy, best.serving.batch, gpu)
