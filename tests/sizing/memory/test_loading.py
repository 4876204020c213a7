"""Host memory while loading: the reference case, properties over models, and the measured rows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizing.dtypes import DTYPES
from sizing.errors import UserError
from sizing.memory import loading
from sizing.memory.loading import LOADING_WAYS, host_terms, usable_ram_bytes
from sizing.memory.terms import Breakdown
from sizing.models.catalogue import load_catalogue
from sizing.models.facts import ModelFacts
from sizing.models.read import facts_from_config
from sizing.units import GIB

MEASURED = Path(loading.__file__).parent / "data" / "loading_measured.csv"
WIDTH = {"fp32": 4, "fp16": 2, "bf16": 2}


def host(model: ModelFacts, dtype: str, way: str = "plain", **rest: Any) -> Breakdown:
    return Breakdown(host_terms(model, dtype, way, **rest))


def llama(layers: int = 4, heads: int = 4, **rest: Any) -> ModelFacts:
    config = {
        "model_type": "llama",
        "hidden_size": 64 * heads,
        "intermediate_size": 128 * heads,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "vocab_size": 1000,
        "tie_word_embeddings": False,
    }
    return facts_from_config(config, name="a model", **{"published_dtype": "fp32", **rest})


FLAN_T5_XL = load_catalogue()["google/flan-t5-xl"]
BF16_FILE = next(m for n in load_catalogue() if (m := load_catalogue()[n]).published_dtype == "bf16" and m.tensors)

models = st.builds(llama, st.integers(1, 60), st.integers(1, 32), published_dtype=st.sampled_from(sorted(WIDTH)))
dtypes = st.sampled_from(sorted(DTYPES))
ways = st.sampled_from(sorted(LOADING_WAYS))


# ---------------------------------------------------------------- the reference case


def test_flan_t5_xl_in_fp32_loaded_plainly_needs_more_than_16_gib_and_less_than_32() -> None:
    need = host(FLAN_T5_XL, "fp32")
    weights = need["weights, built model"].bytes + need["weights, state dict"].bytes
    assert weights == 2 * 4 * 2_849_757_184
    assert need.total("driver", "low") > usable_ram_bytes(16 * GIB, "high")
    assert need.total("driver", "high") < usable_ram_bytes(32 * GIB, "low")


def test_flan_t5_xl_memory_mapped_fits_16_gib_and_says_what_the_kernel_can_take_back() -> None:
    need = host(FLAN_T5_XL, "fp32", "mmap")
    mapped = need["weights, mapped file"]
    assert (mapped.low, mapped.bytes) == (0, 4 * 2_849_757_184)
    assert "take back" in mapped.formula
    assert need.total_bytes < usable_ram_bytes(16 * GIB)
    assert need.total("driver", "low") < 2 * GIB


def test_a_16_bit_load_of_the_fp32_checkpoint_converts_on_the_way() -> None:
    need = host(FLAN_T5_XL, "bf16", "mmap")
    assert need["dtype conversion"].bytes == 2 * 2_849_757_184
    assert "fp32 -> bf16" in need["dtype conversion"].formula
    assert need.total_bytes > host(FLAN_T5_XL, "fp32", "mmap").total_bytes


def test_what_transformers_keeps_in_fp32_is_not_converted() -> None:
    kept = FLAN_T5_XL.numel(lambda t: t.keep_fp32)
    assert kept > 0
    assert host(FLAN_T5_XL, "fp16", "mmap")["dtype conversion"].bytes == 2 * (2_849_757_184 - kept)


def test_mmap_and_convert_are_one_call() -> None:
    for dtype in ("fp32", "fp16"):
        assert host_terms(FLAN_T5_XL, dtype, "mmap") == host_terms(FLAN_T5_XL, dtype, "convert")


# ---------------------------------------------------------------- properties


@given(models, dtypes, ways, st.integers(1, 16))
def test_more_layers_or_more_ranks_never_need_less(model: ModelFacts, dtype: str, way: str, ranks: int) -> None:
    larger = llama(model.main.layers + 1, model.main.heads, published_dtype=model.published_dtype)
    for bound in ("low", "bytes", "high"):
        need = host(model, dtype, way, ranks=ranks).total("driver", bound)
        assert need <= host(larger, dtype, way, ranks=ranks).total("driver", bound)
        assert need <= host(model, dtype, way, ranks=ranks + 1).total("driver", bound)


@given(models, dtypes, st.integers(1, 8))
def test_memory_mapping_and_shards_never_need_more_than_the_plain_way(
    model: ModelFacts, dtype: str, ranks: int
) -> None:
    plain = host(model, dtype, "plain", ranks=ranks).total_bytes
    assert host(model, dtype, "mmap", ranks=ranks).total_bytes <= plain
    assert host(model, dtype, "sharded", ranks=ranks).total_bytes <= plain


@given(models, ways, st.sampled_from(sorted(n for n, d in DTYPES.items() if d.quantized)))
def test_a_quantized_model_needs_no_more_than_its_fp16_self(model: ModelFacts, way: str, quantized: str) -> None:
    # Out of the same file, which neither can use as it is.
    file_dtype = "fp32" if model.published_dtype == "fp32" else "bf16"
    fp16 = host(model, "fp16", way, file_dtype=file_dtype)
    assert host(model, quantized, way, file_dtype=file_dtype).total_bytes <= fp16.total_bytes


@given(models, dtypes, ways, st.integers(1, 16), st.sampled_from([None, *sorted(WIDTH)]))
def test_every_term_is_ordered_and_shows_its_formula(
    model: ModelFacts, dtype: str, way: str, ranks: int, file_dtype: str | None
) -> None:
    terms = host_terms(model, dtype, way, ranks=ranks, file_dtype=file_dtype)
    assert len({t.name for t in terms}) == len(terms)
    for t in terms:
        assert 0 <= t.low <= t.bytes <= t.high
        assert t.formula
    assert {"process", "operating system and container", "page cache headroom"} <= {t.name for t in terms}


@given(models, st.integers(2, 8))
def test_ranks_share_the_pages_of_a_mapped_file_and_nothing_else(model: ModelFacts, ranks: int) -> None:
    one, many = (
        host(model, "fp32", "convert", file_dtype="bf16"),
        host(model, "fp32", "convert", ranks=ranks, file_dtype="bf16"),
    )
    assert many["weights, mapped file"] == one["weights, mapped file"]
    assert many["dtype conversion"].bytes == ranks * one["dtype conversion"].bytes
    assert abs(many["process"].bytes - ranks * one["process"].bytes) < ranks
    assert f"{ranks} ranks" in many["dtype conversion"].formula


# ---------------------------------------------------------------- the file's dtype


def test_the_published_dtype_is_what_the_file_holds_unless_told() -> None:
    assert host(BF16_FILE, "fp32")["weights, state dict"].bytes == 2 * BF16_FILE.params
    assert host(BF16_FILE, "fp32", file_dtype="float32")["weights, state dict"].bytes == 4 * BF16_FILE.params


def test_an_unknown_published_dtype_is_named_as_an_assumption() -> None:
    model = llama(published_dtype="unknown")
    assert host(model, "fp32")["weights, state dict"].bytes == 4 * model.params
    assert host(model, "int8")["weights, state dict"].bytes == 2 * model.params
    assert "assumed" in host(model, "int8")["weights, state dict"].formula


def test_checkpoints_quantized_beforehand_are_read_as_they_are() -> None:
    need = host(llama(), "gptq-int4", "mmap")
    assert "dtype conversion" not in [t.name for t in need.terms]
    assert need["weights, mapped file"].bytes < 4 * llama().params / 4


def test_a_shard_is_at_most_ten_gigabytes() -> None:
    need = host(FLAN_T5_XL, "fp32", "sharded")
    assert need["weights, largest shard"].bytes == 10**10
    small = llama()
    assert host(small, "fp32", "sharded")["weights, largest shard"].bytes == 4 * small.params


# ---------------------------------------------------------------- errors, usable RAM


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dtype": "fp32", "way": "mmaped"}, "unknown way of loading 'mmaped'; did you mean mmap"),
        ({"dtype": "fp31"}, "unknown dtype 'fp31'"),
        ({"dtype": "fp32", "ranks": 0}, "ranks is 0"),
        ({"dtype": "fp32", "file_dtype": "fp12"}, "unknown dtype 'fp12'"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        host_terms(FLAN_T5_XL, **arguments)


def test_a_model_without_weights_cannot_be_loaded() -> None:
    closed = [m for n in load_catalogue() if not (m := load_catalogue()[n]).tensors]
    assert closed
    with pytest.raises(UserError, match="no published weights"):
        host_terms(closed[0], "fp32")


def test_a_machine_keeps_a_little_of_its_memory_for_itself() -> None:
    low, likely, high = (usable_ram_bytes(16 * GIB, b) for b in ("low", "likely", "high"))
    assert low < likely < high < 16 * GIB
    # A g4dn.xlarge's 16,070,168 KiB lie between the bounds.
    assert low < 16_070_168 * 1024 < high


# ---------------------------------------------------------------- what was measured

Measured = dict[str, str]

FROM_PRETRAINED = {"4.28": ("plain", "sharded"), "4.57": ("mmap", "mmap"), "5.23": ("mmap", "mmap")}
"""Which way `from_pretrained` is by version of transformers: on one file, on several."""
CALLED = {
    "build-load": "plain",
    "build-load-shards": "sharded",
    "build-mmap-assign": "assign",
    "bitsandbytes-int8": "mmap",
    "published-plain": "plain",
    "published-sharded": "sharded",
}


def rows() -> list[Measured]:
    with MEASURED.open(newline="") as file:
        return list(csv.DictReader(file))


def way_of(row: Measured) -> str:
    if row["way"] in CALLED:
        return CALLED[row["way"]]
    one, several = FROM_PRETRAINED[".".join(row["transformers"].split(".")[:2])]
    return several if int(row["shards"]) > 1 else one


def expected(row: Measured, bound: str) -> tuple[float, float]:
    """Peak and anonymous memory by the multipliers of the row's way, as ratios to the model's bytes."""
    way = LOADING_WAYS[way_of(row)]
    size = float(row["model_bytes"] or 0)
    # A row without sizes is from a plain model, whose file and weights differ by their dtypes alone.
    file = float(row["file_bytes"]) / size if row["file_bytes"] else WIDTH[row["file_dtype"]] / WIDTH[row["dtype"]]
    shard = float(row["largest_shard_bytes"]) / size if row["largest_shard_bytes"] else file
    changed = float(row["file_dtype"] != row["dtype"])
    if row["dtype"] == "fp16" and size:
        # Weights beyond two bytes a parameter are those kept in fp32, as the file has them.
        changed -= 2 * (size - 2 * float(row["params"])) / size
    built, state, mapped, converted = (
        getattr(r, bound) for r in (way.built, way.state_dict, way.mapped, way.converted)
    )
    if row["dtype"] == "int8" and bound == "low":
        built = converted = 0.0
    anonymous = built + state * (shard if way.by_shard else file) + converted * changed
    return anonymous + mapped * file, anonymous


def label(row: Measured) -> str:
    what = (row["way"], row["model"], row["file_dtype"], row["file_format"], row["shards"], row["dtype"])
    return "-".join(part for part in (*what, row["transformers"]) if part)


@pytest.mark.parametrize("row", rows(), ids=label)
def test_a_measured_peak_lies_between_the_bounds_of_its_way(row: Measured) -> None:
    (low, low_anon), (high, high_anon) = expected(row, "low"), expected(row, "high")
    assert low * 0.97 <= float(row["peak_ratio"]) <= high * 1.03
    if row["anon_ratio"]:
        # Python's own objects, a few megabytes, are not weights.
        assert low_anon * 0.97 <= float(row["anon_ratio"]) <= high_anon * 1.03 + 0.02


@pytest.mark.parametrize(
    "row",
    [r for r in rows() if r["model"] == "llama-0.4b" and r["dtype"] != "int8" and r["transformers"].startswith("5")],
    ids=label,
)
def test_a_model_without_tied_weights_peaks_where_the_estimate_says(row: Measured) -> None:
    peak, anonymous = expected(row, "likely")
    assert float(row["peak_ratio"]) == pytest.approx(peak, rel=0.03)
    assert float(row["anon_ratio"]) == pytest.approx(anonymous, rel=0.03, abs=0.02)


def test_every_way_is_measured_and_every_row_says_where_it_is_from() -> None:
    assert {"plain", "sharded", "assign", "mmap"} == {way_of(row) for row in rows()}
    for row in rows():
        assert row["source"]
        assert row["as_of"]
        assert 0 < float(row["peak_ratio"]) < 5


def test_the_imports_that_are_counted_are_those_that_were_measured() -> None:
    baselines = [int(row["baseline_bytes"]) for row in rows() if row["baseline_bytes"]]
    assert min(baselines) <= loading.IMPORTS.likely <= max(baselines)
