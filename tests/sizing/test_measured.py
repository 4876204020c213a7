"""Measurements in the place of estimates: what they change, what they leave, and which are refused."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from berth.schemas import load
from sizing.choose import choose
from sizing.choosing.fit import Memories
from sizing.choosing.serving import Planner, Serving
from sizing.choosing.wishes import Wishes
from sizing.errors import UserError
from sizing.measured.calibration import calibrate
from sizing.measured.carry import Seen, carried
from sizing.measured.outcome import Outcome, choose_measured
from sizing.measured.read import Measured, read_measured, short_gpu
from sizing.memory.terms import METRICS
from sizing.units import GIB
from sizing.workload import Workload
from tests.sizing.measurements import CATALOGUE, HARDWARE, document, estimate, written

XL = "google/flan-t5-xl"
MISTRAL = "mistralai/Mistral-7B-v0.1"
T4, A10G = (HARDWARE.instance(name).gpu for name in ("g4dn.2xlarge", "g5.2xlarge"))
CASES = st.sampled_from(
    [
        (XL, "g4dn.2xlarge", "fp32"),
        (XL, "g5.2xlarge", "bf16"),
        (MISTRAL, "g5.2xlarge", "bf16"),
        ("google-bert/bert-base-uncased", "g4dn.2xlarge", "fp16"),
        (MISTRAL, "g4dn.2xlarge", "int8"),
    ]
)


def read(content: dict[str, Any]) -> Measured:
    with tempfile.TemporaryDirectory() as place:
        return read_measured(written(Path(place) / "m.json", content), HARDWARE)


def tokens_of(model: str) -> tuple[int, int]:
    return (256, 64) if CATALOGUE[model].generates else (256, 0)


def outcome(*contents: dict[str, Any], model: str = XL, work: Workload | None = None, **wishes: Any) -> Outcome:
    measured = tuple(read(c) for c in contents)
    return choose_measured(
        CATALOGUE[model], work or Workload(), HARDWARE, Wishes(**{"dtype": "fp32", **wishes}), measured
    )


def memories(content: dict[str, Any], model: str, dtype: str, work: Workload) -> Memories:
    calibration = calibrate(CATALOGUE[model], [read(content)], Wishes(dtype=dtype), HARDWARE)
    return Memories(CATALOGUE[model], work, "plain", "transformers", calibration)


@given(CASES, st.lists(st.integers(1, 12), min_size=1, max_size=4, unique=True), st.sampled_from([(256, 64), (64, 32)]))
@settings(max_examples=25, deadline=None)
def test_a_measurement_equal_to_the_estimate_changes_nothing(
    case: tuple[str, str, str], batches: list[int], asked: tuple[int, int]
) -> None:
    model, machine, dtype = case
    tokens = tokens_of(model)
    asked = asked if tokens[1] else (asked[0], 0)
    content = document(model, machine, dtype, batches=sorted(batches), tokens=tokens)
    work, wishes = Workload(*asked, requests_per_day=20_000, latency_s=30.0), Wishes(dtype=dtype)
    calibration = calibrate(CATALOGUE[model], [read(content)], wishes, HARDWARE)
    plain, calibrated = (
        choose(CATALOGUE[model], work, HARDWARE, wishes),
        choose(CATALOGUE[model], work, HARDWARE, wishes, calibration),
    )
    assert (plain.chosen is None) == (calibrated.chosen is None)
    if plain.chosen is not None and calibrated.chosen is not None:
        assert plain.chosen.to_json() == calibrated.chosen.to_json()
    assert [r.to_json() for r in plain.refused] == [r.to_json() for r in calibrated.refused]
    for metric in METRICS:
        assert plain.memory.device.total(metric) == calibrated.memory.device.total(metric)


@given(
    CASES,
    st.lists(
        st.tuples(st.integers(1, 16), st.integers(-GIB, 2 * GIB)), min_size=1, max_size=4, unique_by=lambda p: p[0]
    ),
    st.integers(0, GIB),
    st.integers(0, 3),
    st.sampled_from([(256, 64), (512, 128), (64, 16)]),
)
@settings(max_examples=40, deadline=None)
def test_more_measured_memory_never_gives_a_larger_batch(
    case: tuple[str, str, str], points: list[tuple[int, int]], added: int, at: int, asked: tuple[int, int]
) -> None:
    model, machine, dtype = case
    tokens = tokens_of(model)
    asked = asked if tokens[1] else (asked[0], 0)
    before = dict(sorted(points))
    raised = list(before)[at % len(before)]
    after = {b: more + (added if b == raised else 0) for b, more in before.items()}
    gpu = HARDWARE.instance(machine).gpu
    assert gpu is not None
    largest = []
    for extra in (before, after):
        floor = {
            b: max(m, -estimate(model, dtype, b, tokens)["kernel workspaces"].bytes // 2) for b, m in extra.items()
        }
        content = document(model, machine, dtype, batches=list(floor), tokens=tokens, more=floor.__getitem__)
        largest.append(memories(content, model, dtype, Workload(*asked)).largest_batch(dtype, 1, gpu))
    assert largest[1] <= largest[0]


SEEN = st.lists(
    st.builds(Seen, st.integers(1, 64), st.integers(0, 10**10), st.integers(0, 10**10)),
    min_size=1,
    max_size=5,
    unique_by=lambda s: s.batch,
)


@given(SEEN, st.integers(0, 10**11), st.integers(1, 128), st.booleans(), st.integers(0, 10**9), st.integers(0, 4))
def test_what_is_carried_rises_with_what_was_measured(
    seen: list[Seen], estimated: int, batch: int, same: bool, added: int, at: int
) -> None:
    seen.sort(key=lambda s: s.batch)
    more = list(seen)
    one = more[at % len(more)]
    more[at % len(more)] = Seen(one.batch, one.measured + added, one.estimated)
    assert 0 <= carried(estimated, batch, seen, same_shape=same) <= carried(estimated, batch, more, same_shape=same)
    right = [Seen(s.batch, s.estimated, s.estimated) for s in seen]
    if same and batch in {s.batch for s in seen}:
        estimated = next(s.estimated for s in seen if s.batch == batch)
    assert carried(estimated, batch, right, same_shape=same) == estimated


def test_an_excess_grows_with_the_formula_and_a_saving_does_not() -> None:
    assert carried(800, 8, [Seen(2, 300, 200)], same_shape=False) == 1200
    assert carried(800, 8, [Seen(2, 100, 200)], same_shape=False) == 700
    assert carried(100, 1, [Seen(2, 300, 200)], same_shape=False) == 200
    assert carried(100, 1, [Seen(2, 100, 200)], same_shape=False) == 50
    assert carried(450, 3, [Seen(2, 300, 200), Seen(4, 700, 700)], same_shape=True) == 500


def test_at_a_measured_batch_the_figures_are_the_measured_ones() -> None:
    content = document(batches=(1, 2), more=lambda b: b * 100_000_000)
    work = Workload(batch=2)
    chosen = memories(content, XL, "fp32", work).estimate("fp32", 1, 2, T4).device
    seen = content["largest_batch"]["tried"][1]
    assert chosen.total("allocated") == seen["peak_bytes"]
    assert chosen.total("reserved") == seen["reserved_bytes"]
    assert chosen.total("driver") == chosen.total("driver", "high") == seen["driver_bytes"]
    plain = estimate(XL, "fp32", 2, (512, 128))
    # The cache is what it is; what was measured beside it is activations.
    assert chosen["KV cache"] == plain["KV cache"]
    assert chosen["activations"].bytes > plain["activations"].bytes
    assert "measured" in chosen["activations"].formula


def test_only_weights_go_to_another_gpu_and_nothing_to_several() -> None:
    content = document(more=lambda _: 500_000_000, slower=2.0)
    content["model"]["weights_bytes"] += 50_000_000
    held = memories(content, XL, "fp32", Workload())
    plain = estimate(XL, "fp32", 1, (512, 128))
    other = held.estimate("fp32", 1, 1, A10G).device
    assert other.total_bytes == plain.total_bytes + 50_000_000
    several = held.estimate("fp32", 2, 1, T4)
    assert several == held.estimate("fp32", 2, 1)
    held = memories(document(MISTRAL, "g4dn.2xlarge", "int8", cpu=True), MISTRAL, "int8", Workload())
    assert held.estimate("int8", 1, 1, T4) == held.estimate("int8", 1, 1)


def test_a_batch_that_ran_out_of_memory_fits_nowhere_on_that_gpu() -> None:
    content = document("google/flan-t5-base", batches=(1, 2, 3), failed=(8, 4))
    held = memories(content, "google/flan-t5-base", "fp32", Workload(512, 128))
    assert held.largest_batch("fp32", 1, T4) == 3
    assert held.largest_batch("fp32", 1, A10G) > 100
    shorter = memories(content, "google/flan-t5-base", "fp32", Workload(64, 16))
    assert shorter.largest_batch("fp32", 1, T4) > 3
    found = outcome(content, model="google/flan-t5-base", work=Workload(batch=4), region="us-east-1")
    refused = {r.instance_type: r.reason for r in found.choice.refused}
    assert refused["g4dn.xlarge"] == "T4 GPU memory: a batch of 4 in fp32 ran out of it when it was measured"


def test_it_says_when_the_choice_should_change() -> None:
    work = Workload(batch=8)
    plain = choose(CATALOGUE[XL], work, HARDWARE, Wishes(dtype="fp32"))
    assert plain.chosen is not None
    assert plain.chosen.instance.name == "g4dn.2xlarge"
    found = outcome(document(batches=(1, 2, 4, 6), more=lambda b: b * 250_000_000, failed=(7, 8)), work=work)
    lines = found.lines()
    assert lines[0].startswith("T4, batch 6 (512 tokens in, 128 out): measured ")
    assert lines[0].endswith(": batch 8 does not fit; batch 6 does")
    assert found.changes
    assert found.choice.chosen is not None
    assert found.choice.chosen.instance.gpu is not T4
    assert lines[2].startswith(f"the choice changes: {found.choice.chosen.instance.name} at batch 8")
    stands = outcome(document(batches=(1, 8)), work=work)
    assert not stands.changes
    assert stands.lines()[0].endswith("at most, as estimated")
    assert dict(stands.origins()) | {"latency": "measured"} == dict(stands.origins())
    assert dict(stands.origins())["beyond the weights"] == "measured"
    assert dict(stands.origins())["largest batch"] == "carried over"


def test_seconds_are_those_measured_and_count_for_the_latency() -> None:
    work = Workload(batch=2, latency_s=30.0)
    plain = choose(CATALOGUE[XL], work, HARDWARE, Wishes(dtype="fp32"))
    assert plain.chosen is not None
    content = document(batches=(1, 2), slower=1.25)
    found = outcome(content, work=Workload(batch=2)).choice.chosen
    assert found is not None
    assert found.serving.latency_s == pytest.approx(content["largest_batch"]["tried"][1]["seconds"])
    slow = outcome(document(batches=(1, 2), slower=100.0), work=work)
    assert next(r.reason for r in slow.choice.refused if r.instance_type == "g4dn.2xlarge").startswith("latency: ")
    hosts = []
    for times in (1.0, 1.6):
        wishes = Wishes(dtype="fp32")
        calibration = calibrate(CATALOGUE[XL], [read(document(slower=times))], wishes, HARDWARE)
        planner = Planner(CATALOGUE[XL], Workload(requests_per_day=100_000), wishes, calibration)
        served = planner.serve(HARDWARE.instance("g4dn.2xlarge"))
        assert isinstance(served, Serving)
        hosts.append(served.hosts)
    assert hosts[1] > hosts[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["model"].update(name="gpt2", source="gpt2"), "is of gpt2, not of google/flan-t5-xl"),
        (lambda d: d["model"].update(dtype="bf16"), "is in bf16, and --dtype fp32 is asked for"),
        (lambda d: d["model"].update(dtype="half"), "model.dtype"),
        (lambda d: d.update(format="berth-measurement/9"), "no measurement of the format"),
        (lambda d: d.update(largest_batch=None, target="http://x"), "was taken from outside (http://x)"),
        (lambda d: d["largest_batch"]["tried"][0].update(seconds=-1), "largest_batch.tried[0].seconds is -1"),
        (lambda d: d["largest_batch"]["tried"][0].update(driver_bytes=1), "peak <= reserved <= driver"),
        (lambda d: d["largest_batch"]["tried"][0].pop("reserved_bytes"), "reserved_bytes is null"),
        (lambda d: d["largest_batch"].update(tried=[]), "a list of attempts"),
        (lambda d: d["machine"].update(gpus=None), "machine.gpus is null"),
        (lambda d: d["model"].update(weights_bytes=True), "weights_bytes is true"),
    ],
)
def test_what_calibrates_nothing_is_refused_in_one_line(change: Callable[[Any], Any], says: str) -> None:
    content = document()
    change(content)
    with pytest.raises(UserError) as refused:
        outcome(content)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_dtype_that_auto_does_not_take_on_that_gpu_is_refused() -> None:
    with pytest.raises(UserError, match="--dtype auto takes fp32 on T4; ask for --dtype fp16"):
        outcome(document(dtype="fp16"), dtype="auto")
    assert outcome(document(), dtype="auto").compared


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_measured(tmp_path / "none", HARDWARE)
    (tmp_path / "text").write_text("measured")
    with pytest.raises(UserError, match="is no JSON"):
        read_measured(tmp_path / "text", HARDWARE)


def test_another_engine_or_version_is_warned_of() -> None:
    lines = outcome(document(MISTRAL, "g5.2xlarge", "bf16"), model=MISTRAL, dtype="bf16", engine="vllm").lines()
    assert lines[-1].endswith("measured with transformers; for --engine vllm nothing is taken from it")
    assert lines[0].startswith("the choice stands")
    old = document()
    old["machine"]["versions"]["transformers"] = "4.38.2"
    assert "transformers 4.38.2, whose cache" in outcome(old).lines()[-1]
    assert "tells the weights only" in outcome(document(cpu=True)).lines()[-1]


def test_of_two_files_on_one_gpu_the_nearer_in_length_speaks() -> None:
    near = document(tokens=(256, 64), more=lambda _: 10**8)
    far = document(tokens=(32, 8), more=lambda _: 10**9)
    calibration = calibrate(CATALOGUE[XL], [read(far), read(near)], Wishes(dtype="fp32"), HARDWARE)
    assert T4 is not None
    taken = calibration.of_gpu(T4, "fp32", (300, 64))
    assert taken is not None
    assert taken.input_tokens == 256


def test_gpus_by_their_drivers_names() -> None:
    labels = {
        "Tesla T4": "T4",
        "NVIDIA A10G": "A10G",
        "NVIDIA L4": "L4",
        "NVIDIA L40S": "L40S",
        "NVIDIA A100-SXM4-40GB": "A100",
        "Tesla V100-SXM2-16GB": "V100",
        "NVIDIA H100 80GB HBM3": "H100",
        "NVIDIA GeForce RTX 3090": "",
    }
    assert {label: short_gpu(label, HARDWARE) for label in labels} == labels


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from parts(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from parts(value)


def test_the_command_shows_and_prints_it(run_berth: Callable[..., Any], tmp_path: Path) -> None:
    content = document(batches=(1, 2, 4, 6), more=lambda b: b * 250_000_000, failed=(7, 8))
    Draft202012Validator(load("verify")).validate(content)
    path = written(tmp_path / "m.json", content)
    asked = ("size", XL, "--dtype", "fp32", "--batch", "8", "--measured", path)
    shown = run_berth(*asked)
    assert shown.code == 0, shown.err
    assert "batch 8 does not fit; batch 6 does" in " ".join(shown.out.split())
    assert "the choice changes" in " ".join(shown.out.split())
    printed = run_berth(*asked, "--json")
    size = json.loads(printed.out)
    schema = load("size")
    for part in parts(schema):
        if part.get("additionalProperties") is True and "properties" in part:
            part["additionalProperties"] = False
    Draft202012Validator(schema).validate(size)
    assert size["measured"]["changes"] is True
    assert size["measured"]["choice_by_estimates"]["instance_type"] == "g4dn.2xlarge"
    assert size["measured"]["compared"][0]["max_batch"] == 6
    assert json.loads(run_berth(*asked[:2], "--json").out)["measured"] is None
    refused = run_berth("size", MISTRAL, "--measured", path)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "not of mistralai/Mistral-7B-v0.1" in refused.err
    refused = run_berth("size", XL, "--for", "training", "--data", "100", "--measured", path)
    assert (refused.code, refused.out) == (2, "")
