"""The search for a fine-tuning plan: what always holds, the reference cases, a true reason for every refusal."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizing.errors import UserError
from sizing.hardware.load import Hardware, load_hardware
from sizing.memory.loading import usable_ram_bytes
from sizing.memory.training.estimate import estimate_training
from sizing.models.catalogue import load_catalogue
from sizing.training_plan.costs import cost_lines
from sizing.training_plan.document import document
from sizing.training_plan.lengths import lengths_of
from sizing.training_plan.plan import Plan, TrainingPlan
from sizing.training_plan.search import search, would_fit
from sizing.training_plan.task import TrainingTask, TrainingWishes

MODELS = ("google/flan-t5-small", "google/flan-t5-xl", "meta-llama/Llama-2-7b-hf", "google-bert/bert-base-uncased")
XL, XXL, LLAMA = "google/flan-t5-xl", "google/flan-t5-xxl", "meta-llama/Llama-2-7b-hf"
few = settings(max_examples=8)


def hardware() -> Hardware:
    return load_hardware()


def task_for(
    name: str, examples: int = 15_000, epochs: float = 3, tokens: tuple[int, int] | None = None, batch: int = 64
):
    model = load_catalogue()[name]
    given_in, given_out = tokens or (None, None)
    return TrainingTask(examples, lengths_of(model, (), given_in, given_out, None), epochs, batch)


def found_for(name: str, task: TrainingTask | None = None, **wishes: object) -> TrainingPlan:
    asked = TrainingWishes(**wishes)  # type: ignore[arg-type]
    return search(load_catalogue()[name], task or task_for(name), hardware(), asked)


def check_plan(plan: Plan, name: str) -> None:
    """What any plan must keep, by an estimate made anew."""
    again = estimate_training(load_catalogue()[name], plan.setup)
    gpu = plan.instance.gpu
    assert gpu is not None
    assert again.device.total_bytes <= 0.9 * gpu.memory_bytes
    assert again.host.total_bytes <= usable_ram_bytes(plan.instance.memory_bytes)
    setup = plan.setup
    assert setup.gpus == plan.nodes * plan.instance.gpus
    assert plan.global_batch == setup.micro_batch * setup.gradient_accumulation_steps * setup.gpus
    assert gpu.bf16 or setup.precision not in ("bf16", "pure-bf16")
    for figure in (plan.time.hours, plan.usd):
        assert 0 < figure.low <= figure.likely <= figure.high < math.inf


def plans_of(found: TrainingPlan) -> list[Plan]:
    plans = [*found.front, *(p for p in found.by_method.values() if isinstance(p, Plan))]
    if found.recommended is not None:
        plans.append(found.recommended)
    return plans


@few
@given(
    name=st.sampled_from(MODELS),
    examples=st.integers(1, 1_000_000),
    epochs=st.floats(0.1, 10),
    batch=st.integers(1, 300),
    tokens=st.integers(8, 1500),
    pay=st.sampled_from(["on-demand", "spot", "best", "reserved-1y"]),
)
def test_a_plan_always_fits_with_a_tenth_of_the_memory_left(
    name: str, examples: int, epochs: float, batch: int, tokens: int, pay: str
) -> None:
    if name == "google-bert/bert-base-uncased":
        tokens = min(tokens, 512)
    found = found_for(name, task_for(name, examples, epochs, (tokens, 0 if "bert" in name else 16), batch), pay=pay)
    assert found.recommended is not None
    for plan in plans_of(found):
        check_plan(plan, name)
        assert plan.global_batch >= batch
        assert plan.global_batch - batch < plan.setup.gpus


@few
@given(name=st.sampled_from(MODELS[:3]), examples=st.integers(1, 100_000), nodes=st.sampled_from([None, 1, 4]))
def test_no_plan_of_the_front_is_beaten_by_another(name: str, examples: int, nodes: int | None) -> None:
    found = found_for(name, task_for(name, examples), max_nodes=nodes)
    everything = plans_of(found)
    for plan in found.front:
        assert not any(
            other.hours <= plan.hours
            and other.usd.likely <= plan.usd.likely
            and (other.hours < plan.hours or other.usd.likely < plan.usd.likely)
            for other in found.front
        )
    best = found.recommended
    assert best is not None
    assert best.usd.likely == min(p.usd.likely for p in found.front)
    assert all(p.usd.likely >= best.usd.likely / 1.01 for p in everything)


@few
@given(name=st.sampled_from(MODELS[:3]), first=st.integers(1, 10**6), more=st.integers(1, 10**6))
def test_more_examples_never_cost_less(name: str, first: int, more: int) -> None:
    fewer = found_for(name, task_for(name, first)).recommended
    larger = found_for(name, task_for(name, first + more)).recommended
    assert fewer is not None
    assert larger is not None
    assert larger.usd.likely >= fewer.usd.likely / 1.01  # methods within a hundredth count as alike


@few
@given(
    name=st.sampled_from(MODELS[:3]),
    hours=st.floats(0.05, 50),
    more=st.floats(0, 50),
    usd=st.one_of(st.none(), st.floats(0.5, 500)),
)
def test_longer_limits_never_make_it_dearer(name: str, hours: float, more: float, usd: float | None) -> None:
    task = task_for(name, 100_000)
    tight = found_for(name, task, max_hours=hours, max_usd=usd).recommended
    loose = found_for(name, task, max_hours=hours + more, max_usd=None if usd is None else usd + more).recommended
    if tight is not None:
        assert tight.hours <= hours
        assert usd is None or tight.usd.likely <= usd
        assert loose is not None
        assert loose.usd.likely <= tight.usd.likely


@pytest.mark.parametrize("name", MODELS)
def test_the_document_holds_no_nan_and_no_negative_number(name: str) -> None:
    def walk(value: object) -> None:
        if isinstance(value, dict):
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)
        elif isinstance(value, int | float):
            assert math.isfinite(value)
            assert value >= 0

    walk(document(found_for(name), hardware()))


def test_every_type_has_a_plan_or_a_reason() -> None:
    found = found_for(XL)
    assert found.recommended is not None
    named = {r.instance_type for r in found.refused} | {found.recommended.instance.name}
    assert named == set(hardware().instances)
    assert len(found.refused) == len({r.instance_type for r in found.refused})


def test_a_refusal_for_memory_says_how_much_and_which_term() -> None:
    found = found_for(XXL, methods=("full",))
    refusal = next(r for r in found.refused if r.instance_type == "g4dn.2xlarge")
    assert refusal.kind in ("GPU memory", "system RAM")
    assert refusal.short_bytes is not None
    assert refusal.short_bytes > 0
    assert "GiB short (largest term: " in refusal.reason


def test_bf16_asked_of_a_t4_is_refused_by_name() -> None:
    found = found_for(XL, precision="bf16", instance="g4dn.12xlarge")
    assert found.recommended is None
    (refusal,) = found.refused
    assert refusal.kind == "precision"
    assert "bf16 absent: T4" in refusal.reason


@pytest.mark.parametrize("instance", ["g4dn.12xlarge", "p3dn.24xlarge"])
def test_t5_trains_in_fp32_and_others_in_fp16_where_there_is_no_bf16(instance: str) -> None:
    t5 = found_for("google/flan-t5-base", instance=instance).recommended
    gpt = found_for("openai-community/gpt2", instance=instance).recommended
    assert t5 is not None
    assert gpt is not None
    assert (t5.setup.precision, gpt.setup.precision) == ("fp32", "fp16")


def test_t5_is_never_trained_in_fp16_even_if_asked() -> None:
    found = found_for(XL, precision="fp16")
    assert found.recommended is None
    assert all(r.kind != "precision" or "overflows" in r.reason for r in found.refused)


def test_full_fine_tuning_of_flan_t5_xl_and_xxl_fits_eight_a100_of_40_gb() -> None:
    """Published: both ran on p4d.24xlarge without offload (philschmid, deepseed-flan-t5-summarization)."""
    for name in (XL, XXL):
        task = task_for(name, 287_113, 3, (500, 129))
        plan = found_for(name, task, methods=("full",), instance="p4d.24xlarge").recommended
        assert plan is not None
        assert (plan.nodes, plan.setup.gpus, plan.setup.precision, plan.setup.offload) == (1, 8, "bf16", "none")
        assert plan.setup.zero_stage >= 1


def test_flan_t5_xxl_over_int8_fits_one_a10g() -> None:
    """Published: g5.2xlarge (philschmid, peft-flan-t5-int8-summarization)."""
    task = task_for(XXL, 14_732, 5, (255, 50))
    found = found_for(XXL, task, methods=("lora",), base_dtype="int8", instance="g5.4xlarge")
    assert found.recommended is not None
    assert found.recommended.setup.gpus == 1


@pytest.mark.parametrize(("instance", "precision"), [("g5.2xlarge", "bf16"), ("g4dn.2xlarge", "fp16")])
def test_qlora_of_llama_2_7b_fits_one_a10g_and_one_t4(instance: str, precision: str) -> None:
    plan = found_for(LLAMA, task_for(LLAMA, 1_000, 3, (1024, 0)), methods=("qlora",), instance=instance).recommended
    assert plan is not None
    assert plan.setup.precision == precision
    assert plan.setup.gpus == 1


def test_several_machines_only_where_one_cannot() -> None:
    small = found_for(XL, methods=("full",))
    assert all(plan.nodes == 1 for plan in small.front)
    large = found_for("meta-llama/Llama-3.1-405B", methods=("full",)).recommended
    assert large is not None
    assert large.nodes > 1
    asked = found_for(XL, task_for(XL, 1_000_000, batch=2048), methods=("full",), max_nodes=4)
    assert any(plan.nodes > 1 for plan in asked.front)


def test_a_longer_context_costs_more_and_is_said_aloud() -> None:
    model = load_catalogue()[LLAMA]
    plain = TrainingTask(10_000, lengths_of(model, (), None, None, 4096))
    longer = TrainingTask(10_000, lengths_of(model, (), None, None, 16_384))
    first, second = (search(model, t, hardware(), TrainingWishes()) for t in (plain, longer))
    assert first.recommended is not None
    assert second.recommended is not None
    assert second.recommended.usd.likely > first.recommended.usd.likely
    assert any("16,384 tokens are more than the 4,096 of pretraining" in note for note in second.notes)
    assert not any("of pretraining" in note for note in first.notes)


def test_reserved_says_what_it_commits_to_and_spot_how_often_it_ends() -> None:
    reserved = found_for(XL, pay="reserved-1y")
    assert any("commits to $" in note and "only for those who hold it anyway" in note for note in reserved.notes)
    spot = found_for(XL, pay="spot")
    assert any("two minutes' notice" in note for note in spot.notes)


def test_capacity_blocks_are_paid_by_whole_days_and_shown_beside_on_demand() -> None:
    found = found_for(XL, pay="capacity-block", instance="p5.48xlarge")
    plan = found.recommended
    assert plan is not None
    assert plan.hours < 24
    assert plan.usd.likely == pytest.approx(24 * 39.33)
    lines = {line.pay: line for line in cost_lines(plan, hardware())}
    assert lines["capacity-block"].usd == pytest.approx(24 * 39.33)
    assert lines["on-demand"].usd == pytest.approx(plan.hours * 55.04)
    assert lines["savings-1y"].usd is None


def test_an_unknown_price_is_unpriced_never_zero() -> None:
    lines = cost_lines(plans_of(found_for(XL))[-1], hardware())
    assert all(line.usd is None or line.usd > 0 for line in lines)
    assert all(line.note == "unpriced" for line in lines if line.usd is None)


def test_where_a_limit_stands_in_the_way_the_nearest_miss_is_the_one_least_over_it() -> None:
    found = found_for(XL, max_hours=0.01)
    assert found.recommended is None
    miss = found.nearest_miss()
    assert miss is not None
    assert miss.kind == "over hours"
    fastest = min(found.front, key=lambda p: p.hours)
    assert miss.instance_type == fastest.instance.name


def test_what_would_fit_is_an_option_that_does() -> None:
    found = found_for("meta-llama/Llama-3.1-70B", methods=("full",), instance="g5.12xlarge")
    assert found.recommended is None
    hint = would_fit(found, hardware())
    assert hint.startswith("--method ")
    named = tuple(hint.split()[1].split(","))
    again = search(found.model, found.task, hardware(), replace(found.wishes, methods=named))  # type: ignore[arg-type]
    assert again.recommended is not None


def test_weights_in_int8_are_never_sharded() -> None:
    found = found_for("meta-llama/Llama-3.1-70B", methods=("lora",), base_dtype="int8")
    assert found.front
    assert all(plan.setup.zero_stage == 0 for plan in found.front)


def test_prompt_tuning_never_displaces_lora_at_the_same_cost() -> None:
    best = found_for(XL).recommended
    assert best is not None
    assert best.setup.method != "prompt"


def test_a_closed_model_cannot_be_fine_tuned() -> None:
    closed = next(e.name for e in load_catalogue().entries.values() if not e.deployable)
    model = load_catalogue()[closed]
    with pytest.raises(UserError, match="no published weights"):
        search(model, task_for(XL), hardware(), TrainingWishes())


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"methods": ("lorra",)}, "unknown method 'lorra'; did you mean"),
        ({"optimizers": ("adam",)}, "unknown optimizer 'adam'"),
        ({"precision": "bf8"}, "unknown precision 'bf8'"),
        ({"pay": "credit"}, "unknown way of paying 'credit'"),
        ({"max_hours": 0.0}, "max-hours is 0"),
        ({"max_usd": math.nan}, "max-usd is nan"),
        ({"max_nodes": 0}, "max-nodes is 0"),
        ({"methods": ()}, "no method given"),
        ({"base_dtype": "gptq-int4"}, "unknown base dtype 'gptq-int4'"),
    ],
)
def test_bad_wishes_are_named(wishes: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        TrainingWishes(**wishes)  # type: ignore[arg-type]


def test_a_region_or_type_that_is_not_known_is_named() -> None:
    with pytest.raises(UserError, match="unknown region"):
        found_for(XL, region="mars-1")
    with pytest.raises(UserError, match="unknown instance type"):
        found_for(XL, instance="p4d.25xlarge")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"examples": 0}, "examples is 0"),
        ({"epochs": 0.0}, "epochs is 0"),
        ({"epochs": math.inf}, "epochs is inf"),
        ({"global_batch": 70_000}, "global-batch is 70,000"),
    ],
)
def test_a_bad_task_is_named(fields: dict[str, object], says: str) -> None:
    lengths = lengths_of(load_catalogue()[XL], (), None, None, None)
    with pytest.raises(UserError, match=says):
        TrainingTask(**{"examples": 10, "lengths": lengths, **fields})  # type: ignore[arg-type]


def test_learned_positions_end_with_the_window() -> None:
    bert = load_catalogue()["google-bert/bert-base-uncased"]
    with pytest.raises(UserError, match="positions for 512 tokens and cannot be trained on 1,024"):
        lengths_of(bert, (), 1024, None, None)
