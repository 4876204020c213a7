"""The choice: the reference case, what always holds of a choice, and a true reason for every type not taken."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sizing.choose import Choice, choose, would_fit
from sizing.choosing.document import document
from sizing.choosing.fit import LARGEST_BATCH, Memories
from sizing.choosing.precision import auto_dtype, refused_dtype
from sizing.choosing.wishes import Wishes
from sizing.errors import UserError
from sizing.hardware.load import load_hardware
from sizing.hardware.types import PAYS
from sizing.memory.inference import estimate_inference, largest_batch
from sizing.memory.loading import host_terms, usable_ram_bytes
from sizing.memory.setup import InferenceSetup
from sizing.memory.terms import Breakdown
from sizing.models.catalogue import load_catalogue
from sizing.money import month_cost
from sizing.units import GIB
from sizing.workload import Workload, check_context, default_tokens

HARDWARE = load_hardware()
CATALOGUE = load_catalogue()
XL = CATALOGUE["google/flan-t5-xl"]
MODELS = (
    "google/flan-t5-small",
    "google/flan-t5-xl",
    "google/flan-t5-xxl",
    "google-bert/bert-base-uncased",
    "mistralai/Mistral-7B-Instruct-v0.2",
    "meta-llama/Llama-2-13b-hf",
    "mistralai/Mixtral-8x7B-v0.1",
    "bigscience/bloom-7b1",
)


def size(model: str = "google/flan-t5-xl", work: Workload | None = None, **wishes: Any) -> Choice:
    return choose(CATALOGUE[model], work or Workload(), HARDWARE, Wishes(**wishes))


def reason(choice: Choice, instance_type: str) -> str:
    return next(r.reason for r in choice.refused if r.instance_type == instance_type)


def readable(model: str, work: Workload) -> bool:
    """Whether the model's learned positions reach that far."""
    facts = CATALOGUE[model]
    return facts.main.position != "learned" or work.input_tokens <= (facts.context_window or 0)


def test_the_reference_case() -> None:
    """FLAN-T5-XL, fp32, one GPU, us-east-1: the smallest T4 machine with enough RAM for the plain way of loading."""
    on_demand, reserved = size(dtype="fp32").chosen, size(dtype="fp32", pay="reserved-1y").chosen
    assert on_demand is not None
    assert reserved is not None
    assert (on_demand.instance.name, on_demand.usd_per_hour) == ("g4dn.2xlarge", 0.752)
    assert (reserved.instance.name, reserved.usd_per_hour) == ("g4dn.2xlarge", 0.474)
    assert reserved.usd_per_year == pytest.approx(4152, abs=1)
    assert on_demand.max_batch >= 1


def test_the_smaller_machine_of_the_reference_case_lacks_ram_and_the_leaner_way_would_do() -> None:
    choice = size(dtype="fp32")
    refusal = next(r for r in choice.refused if r.instance_type == "g4dn.xlarge")
    needed = Breakdown(host_terms(XL, "fp32", "plain")).total_bytes
    assert refusal.short_bytes == needed - usable_ram_bytes(16 * GIB)
    assert refusal.reason.startswith("system RAM: ")
    assert "weights" in refusal.reason
    assert "--loading mmap would fit" in refusal.reason
    lean = size(dtype="fp32", loading="mmap").chosen
    assert lean is not None
    assert lean.instance.name == "g4dn.xlarge"


works = st.builds(
    Workload,
    input_tokens=st.integers(1, 2048),
    output_tokens=st.integers(1, 512),
    batch=st.integers(1, 64),
    hours_per_day=st.floats(0.5, 24),
)
loads = st.builds(
    Workload,
    input_tokens=st.integers(1, 1024),
    output_tokens=st.integers(1, 256),
    requests_per_day=st.floats(1, 1e6),
    latency_s=st.one_of(st.none(), st.floats(0.2, 60)),
    hours_per_day=st.floats(1, 24),
    peak_factor=st.floats(1, 5),
)
wishes_ = st.builds(
    Wishes,
    dtype=st.sampled_from(["auto", "fp32", "fp16", "bf16", "int8", "nf4"]),
    region=st.sampled_from(["us-east-1", "eu-west-1", "any"]),
    pay=st.sampled_from(["on-demand", "reserved-1y", "spot", "best"]),
    max_gpus=st.sampled_from([1, 4, 8]),
    loading=st.sampled_from(["plain", "mmap"]),
)


@settings(max_examples=60)
@given(model=st.sampled_from(MODELS), work=st.one_of(works, loads), wishes=wishes_)
def test_a_choice_fits_is_for_sale_and_everything_else_has_one_reason(
    model: str, work: Workload, wishes: Wishes
) -> None:
    assume(readable(model, work))
    choice = choose(CATALOGUE[model], work, HARDWARE, wishes)
    names = [r.instance_type for r in choice.refused]
    assert len(names) == len(set(names))
    assert all(r.reason and "\n" not in r.reason for r in choice.refused)
    assert all(r.short_bytes is None or r.short_bytes > 0 for r in choice.refused)
    chosen = choice.chosen
    if chosen is None:
        assert set(names) == set(HARDWARE.instances)
        return
    assert {*names, chosen.instance.name} == set(HARDWARE.instances)
    assert chosen.instance.gpu is not None
    serving, gpu = chosen.serving, chosen.instance.gpu
    setup = InferenceSetup(
        serving.dtype,
        serving.batch,
        work.input_tokens,
        work.output_tokens,
        serving.gpus_per_copy,
        loading=wishes.loading,
    )
    assert estimate_inference(CATALOGUE[model], setup).device.total_bytes <= gpu.memory_bytes
    host = Breakdown(host_terms(CATALOGUE[model], serving.dtype, wishes.loading, ranks=serving.copies))
    assert host.total_bytes <= usable_ram_bytes(chosen.instance.memory_bytes)
    assert serving.copies * serving.gpus_per_copy <= wishes.max_gpus
    assert serving.batch <= chosen.max_batch
    assert refused_dtype(serving.dtype, gpu) == ""
    assert HARDWARE.offered(chosen.instance.name, chosen.region) is not False
    assert chosen.price.usd_per_hour[chosen.pay] == chosen.usd_per_hour > 0
    if work.latency_s is not None:
        assert serving.latency_s is not None
        assert serving.latency_s <= work.latency_s
        assert chosen.pay != "spot" or wishes.pay == "spot"
    for figure in (chosen.usd_per_month, chosen.usd_per_year):
        assert math.isfinite(figure)
        assert figure > 0


@settings(max_examples=25)
@given(model=st.sampled_from(MODELS), work=works, dtype=st.sampled_from(["fp16", "int8", "auto"]))
def test_no_machine_that_fits_is_cheaper(model: str, work: Workload, dtype: str) -> None:
    """By another way than `choose` goes: every priced machine of the region, judged by the estimates alone."""
    assume(readable(model, work))
    choice = size(model, work, dtype=dtype)
    cheapest = math.inf
    for offer in HARDWARE.offers("us-east-1", ["on-demand"]):
        gpu = offer.instance.gpu
        if gpu is None or gpu.vendor != "nvidia" or offer.instance.gpus != 1:
            continue
        kind = auto_dtype(CATALOGUE[model], gpu) if dtype == "auto" else dtype
        setup = InferenceSetup(kind, work.batch, work.input_tokens, work.output_tokens)
        memory = estimate_inference(CATALOGUE[model], setup)
        if (
            not refused_dtype(kind, gpu)
            and memory.device.total_bytes <= gpu.memory_bytes
            and memory.host.total_bytes <= usable_ram_bytes(offer.instance.memory_bytes)
        ):
            cheapest = min(cheapest, month_cost(offer.usd_per_hour, "on-demand", work.hours_per_day))
    assert (math.inf if choice.chosen is None else choice.chosen.usd_per_month) == pytest.approx(cheapest)


@settings(max_examples=30)
@given(work=loads, more=st.floats(1, 50))
def test_more_requests_never_cost_less(work: Workload, more: float) -> None:
    few, many = (
        size(work=work),
        size(work=replace(work, requests_per_day=min(1e10, (work.requests_per_day or 1) * more))),
    )
    assert (few.chosen is None) == (many.chosen is None)
    if few.chosen is not None and many.chosen is not None:
        assert many.chosen.usd_per_month >= few.chosen.usd_per_month - 1e-6
        if many.chosen.instance == few.chosen.instance:
            assert many.chosen.serving.hosts >= few.chosen.serving.hosts


@given(model=st.sampled_from(MODELS), tokens=st.integers(1, 2048), output=st.integers(0, 256), batch=st.integers(1, 32))
def test_fewer_bits_never_weigh_more(model: str, tokens: int, output: int, batch: int) -> None:
    names = ("weights", "weights kept in fp32", "weights kept in 16 bit", "quantization constants")
    weights = [
        estimate_inference(CATALOGUE[model], InferenceSetup(d, batch, tokens, output)).device.bytes_of(names)
        for d in ("int8", "fp16", "fp32")
    ]
    assert weights == sorted(weights)


@settings(max_examples=20)
@given(
    model=st.sampled_from(MODELS),
    machine=st.sampled_from(["g4dn.xlarge", "g5.xlarge", "g6f.2xlarge", "p5.4xlarge"]),
    dtype=st.sampled_from(["fp16", "int8"]),
    tokens=st.integers(1, 512),
)
def test_the_largest_batch_is_found_in_few_estimates_and_is_the_same(
    model: str, machine: str, dtype: str, tokens: int
) -> None:
    gpu = HARDWARE.instance(machine).gpu
    assert gpu is not None
    memories = Memories(CATALOGUE[model], Workload(tokens, 32), "plain", "transformers")
    found = memories.largest_batch(dtype, 1, gpu)
    assert found == largest_batch(CATALOGUE[model], memories.setup(dtype, 1, 1), gpu.memory_bytes, LARGEST_BATCH)


def test_reasons_are_of_their_kind() -> None:
    choice = size(dtype="bf16", max_monthly_usd=1000.0)
    assert reason(choice, "g4dn.2xlarge") == "bf16 asked, T4 has none (compute capability 7.5)"
    assert reason(choice, "p3.2xlarge") == "bf16 asked, V100 has none (compute capability 7.0)"
    assert reason(choice, "inf2.xlarge").endswith("the LMI handler here runs on CUDA")
    assert reason(choice, "c7i.large") == "it has no GPU"
    assert reason(choice, "p4d.24xlarge") == "8 GPUs, more than --max-gpus 1"
    assert reason(choice, "p5.4xlarge").startswith("over --max-monthly: $5,022.40 a month")
    assert reason(choice, "g5.2xlarge").startswith("costs more: $884.76 a month (on-demand), $191.26 above g6f.4xlarge")
    assert "GPU memory" in reason(choice, "g6f.large")
    assert reason(size(dtype="fp8"), "g5.2xlarge").startswith("fp8 asked, A10G cannot: compute capability 8.6")
    assert reason(size(dtype="fp16"), "p3.2xlarge") == "offered in no zone of us-east-1"
    assert reason(size(pay="reserved-1y"), "g7.2xlarge") == "unpriced: no reserved-1y rate is known in us-east-1"
    assert reason(size(work=Workload(latency_s=3.0)), "g4dn.2xlarge").startswith("latency: ")


def test_a_gpu_of_unpublished_speed_promises_no_latency_but_serves_a_batch() -> None:
    known = HARDWARE.instance("g5.2xlarge")
    assert known.gpu is not None
    unrated = replace(known, gpu=replace(known.gpu, bandwidth=None))
    hardware = replace(HARDWARE, instances={known.name: unrated}, _offers={})
    promised = choose(XL, Workload(latency_s=30.0), hardware, Wishes(dtype="bf16"))
    assert promised.chosen is None
    assert promised.refused[0].reason.startswith("speed unknown: no published memory bandwidth for A10G")
    plain = choose(XL, Workload(), hardware, Wishes(dtype="bf16"))
    assert plain.chosen is not None
    assert plain.chosen.speed is None
    assert any(note.startswith("speed unknown") for note in plain.notes)


def test_a_machine_of_a_region_that_lacks_it_is_not_offered() -> None:
    choice = size(region="eu-west-1", dtype="bf16")
    assert reason(choice, "g6.2xlarge").startswith(("offered in no zone of eu-west-1", "unpriced"))
    assert choice.chosen is not None
    assert choice.chosen.region == "eu-west-1"


@pytest.mark.parametrize(
    ("model", "gpu", "expected"),
    [
        ("google/flan-t5-xl", "g4dn.xlarge", "fp32"),
        ("mistralai/Mistral-7B-v0.1", "g4dn.xlarge", "fp16"),
        ("mistralai/Mistral-7B-v0.1", "p3.2xlarge", "fp16"),
        ("google/flan-t5-xl", "g5.xlarge", "bf16"),
        ("mistralai/Mistral-7B-v0.1", "p5.4xlarge", "bf16"),
    ],
)
def test_auto_follows_the_gpu_and_keeps_t5_out_of_fp16(model: str, gpu: str, expected: str) -> None:
    found = HARDWARE.instance(gpu).gpu
    assert found is not None
    assert auto_dtype(CATALOGUE[model], found) == expected


def test_best_is_the_cheapest_and_leaves_spot_out_where_a_latency_is_promised() -> None:
    costs = {p: c.usd_per_month for p in PAYS if (c := size(dtype="fp32", pay=p).chosen) is not None}
    best = size(dtype="fp32", pay="best")
    assert best.chosen is not None
    assert best.chosen.usd_per_month == min(costs.values())
    assert best.chosen.pay == "spot"
    assert any("taken away" in note and "without spot" in note for note in best.notes)
    promised = size(work=Workload(latency_s=30.0), dtype="fp32", pay="best").chosen
    assert promised is not None
    assert promised.pay != "spot"


def test_all_regions_are_never_dearer_than_one() -> None:
    anywhere = size(region="any").chosen
    assert anywhere is not None
    for region in HARDWARE.priced_regions:
        there = size(region=region).chosen
        assert there is None or there.usd_per_month >= anywhere.usd_per_month


def test_more_gpus_hold_a_larger_model_in_layers_or_several_copies() -> None:
    large = size("meta-llama/Llama-2-70b-hf", max_gpus=8)
    assert size("meta-llama/Llama-2-70b-hf").chosen is None
    assert large.chosen is not None
    assert large.chosen.serving.gpus_per_copy > 1
    assert any("device_map" in note for note in large.notes)
    busy = size(
        "google/flan-t5-xl", Workload(requests_per_day=200_000, latency_s=8.0), max_gpus=4, max_monthly_usd=1e6
    ).chosen
    assert busy is not None
    assert busy.serving.copies * busy.serving.gpus_per_copy == busy.instance.gpus


def test_continuous_batches_need_no_more_hosts() -> None:
    work = Workload(requests_per_day=500_000, latency_s=10.0)
    eager = size("mistralai/Mistral-7B-Instruct-v0.2", work, loading="mmap").chosen
    served = size("mistralai/Mistral-7B-Instruct-v0.2", work, engine="vllm").chosen
    assert eager is not None
    assert served is not None
    assert served.usd_per_month < eager.usd_per_month


def test_where_nothing_fits_the_nearest_miss_and_a_way_out_are_named() -> None:
    nothing = size(dtype="fp32", max_monthly_usd=300.0)
    assert nothing.chosen is None
    miss = nothing.nearest_miss()
    assert miss is not None
    assert (miss.instance_type, miss.kind) == ("g4dn.2xlarge", "over budget")
    assert would_fit(nothing, HARDWARE).startswith("--pay best would do (g4dn.2xlarge")
    hopeless = size(work=Workload(latency_s=0.001))
    assert would_fit(hopeless, HARDWARE) == ""
    large = size("meta-llama/Llama-2-70b-hf").nearest_miss()
    assert large is not None
    assert large.short_bytes is not None


def test_the_document_has_the_keys_that_later_stages_read() -> None:
    for choice in (size(dtype="fp32"), size(work=Workload(latency_s=0.001))):
        found = document(choice, HARDWARE)
        assert {"choice", "refused", "memory", "costs", "sagemaker", "throughput", "model"} <= set(found)
        assert all(set(r) == {"instance_type", "reason", "short_bytes"} for r in found["refused"])
        assert {"device", "host", "rule_of_thumb"} <= set(found["memory"])
        if choice.chosen is None:
            assert found["choice"] is found["costs"] is found["sagemaker"] is None
        else:
            keys = {
                "instance_type",
                "region",
                "pay",
                "dtype",
                "max_batch",
                "usd_per_hour",
                "usd_per_month",
                "usd_per_year",
            }
            assert keys <= set(found["choice"])


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"dtype": "fp12"}, "unknown dtype 'fp12'"),
        ({"region": "mars-1"}, "unknown region 'mars-1'"),
        ({"pay": "cash"}, "unknown way of paying 'cash'"),
        ({"loading": "teleport"}, "unknown way of loading"),
        ({"engine": "litgpt"}, "unknown engine 'litgpt'"),
        ({"max_gpus": 0}, "max-gpus is 0"),
        ({"max_gpus": 1_000_000}, "max-gpus is 1000000"),
        ({"max_monthly_usd": -1.0}, "max-monthly is -1"),
        ({"max_monthly_usd": math.nan}, "max-monthly is nan"),
        ({"max_monthly_usd": math.inf}, "max-monthly is inf"),
        ({"engine": "vllm"}, "vLLM serves decoder-only models"),
    ],
)
def test_wishes_that_cannot_be_met_are_told_in_one_line(wishes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as told:
        size(**wishes)
    assert says in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_tokens", 0),
        ("output_tokens", -1),
        ("batch", 0),
        ("batch", 10**9),
        ("requests_per_day", -5.0),
        ("requests_per_day", math.nan),
        ("requests_per_day", 1e30),
        ("latency_s", 0.0),
        ("latency_s", math.inf),
        ("hours_per_day", 0.0),
        ("hours_per_day", 24.5),
        ("peak_factor", 0.5),
        ("peak_factor", math.nan),
    ],
)
def test_absurd_work_is_refused(field: str, value: float) -> None:
    with pytest.raises(UserError) as told:
        size(work=Workload(**{"requests_per_day": 10.0, field: value} if field != "batch" else {field: value}))
    assert field.removesuffix("_s").replace("_", "-") in str(told.value)


def test_a_closed_model_and_a_request_longer_than_learned_positions_are_refused() -> None:
    with pytest.raises(UserError, match="closed"):
        size("openai/gpt-3.5-turbo")
    with pytest.raises(UserError, match="reads at most 1,024 tokens"):
        size("openai-community/gpt2", Workload(input_tokens=1000, output_tokens=100))
    assert "go beyond the 512" in check_context(XL, Workload(input_tokens=2000))
    assert check_context(XL, Workload()) == ""


def test_token_counts_not_given_are_the_tasks_within_the_window() -> None:
    gpt2, bert = CATALOGUE["openai-community/gpt2"], CATALOGUE["google-bert/bert-base-uncased"]
    assert default_tokens(XL, "summarization", None, None) == (512, 128)
    assert default_tokens(gpt2, "summarization", None, None) == (1024 - 128, 128)
    assert default_tokens(bert, "sentiment", None, None) == (128, 0)
    assert default_tokens(XL, "", 100, 7) == (100, 7)
