"""Training time: how the estimate moves, its tables, and how far it is from published times."""

from __future__ import annotations

import csv
import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sizing.accuracy
from sizing.models.catalogue import load_catalogue
from sizing.throughput.device import Device
from sizing.training_plan.measured import measurements, median_error, step_seconds
from sizing.training_plan.passes import forward_passes, passes_of
from sizing.training_plan.speed import Cluster, Way, step_time
from sizing.training_plan.tables import FOLDER, constants, mfu, mfu_rows

ROOT = Path(__file__).parents[3]
A100 = Device("A100", 1.555e12, 312e12, 19.5e12, 300e9, True)
WAY = Way("full", "decoder-only", "16bit", 2, "none", False, 4, 2, 2.0, 6.7e9)
ON_AWS = ("A100", "A10G", "V100", "L40S", "H100")


def llama():  # type: ignore[no-untyped-def]
    return passes_of(load_catalogue()["meta-llama/Llama-2-7b-hf"])


def seconds(way: Way = WAY, cluster: Cluster | None = None, tokens: float = 1024) -> float:
    return step_time(llama(), way, cluster or Cluster(A100, 8), tokens, 0).total


def test_a_long_sequence_takes_six_operations_a_parameter_and_token() -> None:
    """6 · parameters · tokens + 12 · layers · hidden · tokens a token (Kaplan et al., Korthikanti et al.)."""
    model = load_catalogue()["meta-llama/Llama-2-7b-hf"]
    tokens = 2048
    matrices = model.params - model.vocab_size * model.hidden_size  # the input embedding is looked up
    expected = tokens * (6 * matrices + 12 * 32 * 4096 * tokens)
    assert llama().forward(tokens, 0) * forward_passes("full", False) == pytest.approx(expected, rel=0.001)


def test_recomputation_makes_six_operations_eight_and_frozen_weights_four() -> None:
    assert [forward_passes("full", again) * 2 for again in (False, True)] == [6, 8]
    assert [forward_passes("lora", again) * 2 for again in (False, True)] == [4, 6]


def test_an_encoder_decoder_does_not_pass_every_parameter_with_every_token() -> None:
    model = load_catalogue()["google/flan-t5-xl"]
    passes = passes_of(model)
    assert passes.forward(512, 128) < 2 * model.params * (512 + 128)
    assert passes.forward(512, 128) > passes.forward(512, 64) > passes.forward(256, 64)


@given(
    tokens=st.integers(1, 8192),
    more=st.integers(1, 8192),
    micro=st.integers(1, 64),
    stage=st.sampled_from([0, 1, 2, 3]),
    again=st.booleans(),
    pace=st.sampled_from(["fast", "likely", "slow"]),
)
def test_more_tokens_or_sequences_never_take_less_time(
    tokens: int, more: int, micro: int, stage: int, again: bool, pace: str
) -> None:
    way = replace(WAY, zero_stage=stage, checkpointing=again, micro_batch=micro)
    cluster = Cluster(A100, 8)

    def total(w: Way, t: int) -> float:
        return step_time(llama(), w, cluster, t, 0, pace).total  # type: ignore[arg-type]

    alone = total(way, tokens) * (1 - 1e-12)  # sums are rounded
    assert 0 < alone <= total(way, tokens + more)
    assert alone <= total(replace(way, micro_batch=micro + 1), tokens)
    assert alone <= total(replace(way, accumulation=way.accumulation + 1), tokens)


@given(st.sampled_from([0, 1, 2, 3]), st.integers(1, 4096))
def test_the_paces_are_in_order(stage: int, tokens: int) -> None:
    way = replace(WAY, zero_stage=stage)
    fast, likely, slow = (
        step_time(llama(), way, Cluster(A100, 8), tokens, 0, p).total for p in ("fast", "likely", "slow")
    )
    assert fast <= likely <= slow


def test_recomputation_offload_and_slow_links_cost_time() -> None:
    assert seconds(replace(WAY, checkpointing=True)) > seconds()
    assert seconds(replace(WAY, offload="optimizer")) > seconds()
    assert seconds(replace(WAY, zero_stage=3, offload="all")) > seconds(replace(WAY, zero_stage=3, offload="optimizer"))
    pcie = replace(A100, link_bandwidth=12e9, fast_link=False)
    assert seconds(cluster=Cluster(pcie, 8)) > seconds()


def test_zero_3_sends_half_as_much_again_as_zero_2_in_a_step_without_accumulation() -> None:
    one = replace(WAY, accumulation=1)
    two, three = (
        step_time(llama(), replace(one, zero_stage=stage, trained=llama().params), Cluster(A100, 8), 512, 0)
        for stage in (2, 3)
    )
    assert three.communication / two.communication == pytest.approx(1.5)


def test_between_machines_the_network_is_what_counts() -> None:
    fast, slow = (Cluster(A100, 8, 2, gbps * 1e9 / 8) for gbps in (3200, 100))
    three = replace(WAY, zero_stage=3)
    within = Cluster(A100, 8)
    sent = [step_time(llama(), three, c, 512, 0).communication for c in (slow, fast, within)]
    assert sent[0] > 10 * sent[1]
    assert sent[1] >= sent[2] > 0


def test_weights_of_4_bits_are_expanded_in_each_pass_and_those_of_8_in_the_last() -> None:
    way = replace(WAY, method="qlora", checkpointing=True, base_bytes=0.5, trained=1e7, zero_stage=0)
    never, backward, every = (
        step_time(llama(), replace(way, unpacks=when), Cluster(A100, 1), 4096, 0).compute
        for when in ("never", "backward", "every pass")
    )
    assert every - never == pytest.approx(3 * (backward - never))


def test_one_gpu_communicates_nothing() -> None:
    assert step_time(llama(), WAY, Cluster(A100, 1), 512, 0).communication == 0


def test_fp32_without_a_published_figure_is_no_estimate() -> None:
    with pytest.raises(ValueError, match="no published fp32"):
        step_time(llama(), replace(WAY, width="fp32"), Cluster(replace(A100, flops_fp32=None), 1), 512, 0)


def test_the_most_specific_line_of_the_table_counts() -> None:
    assert mfu("A100", "decoder-only", "lora", "16bit").how == "fit"
    assert mfu("A100", "encoder-decoder", "lora", "16bit").share.likely < 0.4
    assert mfu("some new GPU", "decoder-only", "full", "16bit").how == "assumed"


def test_every_constant_has_a_source_a_date_and_says_what_is_assumed() -> None:
    with (FOLDER / "constants.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in (*rows, *mfu_rows()):
        assert row["how"] in ("fit", "assumed", "published")
        assert row["source"]
        assert row["as_of"][:2] == "20"
    for row in rows:
        assert min(float(row["fast"]), float(row["slow"])) <= float(row["likely"])
        assert float(row["likely"]) <= max(float(row["fast"]), float(row["slow"]))
    assert constants("fast").layer_seconds < constants("slow").layer_seconds


def test_measured_lines_are_those_of_the_measured_points() -> None:
    """A value that measured_points.csv holds is taken over as it stands there, with its source."""
    with (Path(sizing.accuracy.__file__).parent / "data" / "measured_points.csv").open(encoding="utf-8") as file:
        known = {(row["measured_value"], row["source"]) for row in csv.DictReader(file)}
    found = measurements()
    missing = [m for m in found if m.point and (m.point, m.source) not in known]
    assert not missing
    assert sum(bool(m.point) for m in found) > 60


def test_published_times_on_machines_like_aws_s_are_met_within_the_range_stated() -> None:
    check = [m for m in measurements() if m.split == "check" and m.gpu in ON_AWS]
    assert len(check) >= 15
    assert median_error(check) <= 0.25
    assert sum(m.within for m in check) >= 0.75 * len(check)


@pytest.mark.parametrize(
    ("quantity", "value", "expected"),
    [
        ("s_per_step", 2.5, 2.5),
        ("tokens_per_s", 1000.0, 8 * 512 / 1000),
        ("hours_for_800_sequences", 1.0, 36.0),
        ("minutes_for_800_sequences", 60.0, 36.0),
        ("gpu_hours_for_800_sequences", 1.0, 36.0),
    ],
)
def test_a_published_figure_becomes_seconds_of_a_step(quantity: str, value: float, expected: float) -> None:
    assert step_seconds(quantity, value, 8, 512) == pytest.approx(expected)


def test_the_page_shows_what_the_tables_say() -> None:
    spec = importlib.util.spec_from_file_location("training_time_page", ROOT / "scripts" / "training_time_accuracy.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (ROOT / "docs" / "training-time.md").read_text(encoding="utf-8")
    assert page == script.render(), "scripts/training_time_accuracy.py writes docs/training-time.md anew"
