"""The catalogue: what it must hold, what its columns promise, and what becomes of a damaged one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizing.dtypes import DTYPES
from sizing.errors import UserError
from sizing.models.catalogue import (
    CONFIGS,
    DATA,
    MODELS,
    Catalogue,
    load_catalogue,
    read_catalogue,
    read_configs,
    read_entries,
)
from sizing.models.tasks import TASKS

CATALOGUE = load_catalogue()
ENTRIES = list(CATALOGUE.entries.values())
CSV_TEXT = (DATA / MODELS).read_text(encoding="utf-8")
JSON_TEXT = (DATA / CONFIGS).read_text(encoding="utf-8")

FAMILIES = (
    "FLAN-T5", "T5", "T5 v1.1", "UL2", "FLAN-UL2", "mT0", "BART", "Pegasus", "BERT", "RoBERTa", "DeBERTa", "DistilBERT",
    "XLNet", "GPT-2", "GPT-J", "GPT-NeoX", "OPT", "BLOOM", "BLOOMZ", "LLaMA", "Llama 2", "Llama 3", "Llama 3.1",
    "Llama 3.2", "Mistral", "Mixtral", "Falcon", "MPT", "Pythia", "Phi", "Qwen", "Qwen2.5", "Qwen3", "Gemma 2",
    "Gemma 3", "Granite 3", "GPT-3.5",
)  # fmt: skip
MEASURED = (
    "phi-1.5", "codellama-34b", "falcon-7b", "falcon-40b", "falcon-180b", "octocoder", "vicuna-7b", "tinyllama",
    "deepseek-coder-33b", "llama-2-7b", "llama-2-13b", "llama-2-70b", "llama-2-70b-chat", "t5-3b", "t5-11b", "t0_3b",
    "t0pp", "opt-1.3b", "opt-13b", "opt-30b", "opt-66b", "gpt-neox-20b", "gpt-j-6b", "bloomz-7b1", "bloom-176b",
    "mt0-xxl", "qwen-1.8b", "qwen-7b", "qwen-7b-chat", "qwen-14b-chat", "qwen-72b", "smollm2-360m", "qwen3-4b",
    "qwen3-8b", "deepseek-r1-0528-qwen3-8b", "blenderbot-400m-distill", "bart-large", "deberta-v2-xlarge-mnli",
    "gpt2-large", "gpt2-xl", "llama-7b", "llama-13b", "llama-33b", "llama-65b", "llama-3-8b", "llama-3-70b",
    "llama-3.1-8b", "llama-3.1-8b-instruct", "llama-3.1-70b", "llama-3.2-3b", "mistral-7b", "mistral-7b-v0.3",
    "mixtral", "gemma-1.1-2b-it", "flan-t5-xl", "flan-t5-xxl",
)  # fmt: skip
PUBLISHED = {
    "google/flan-t5-small": 76_961_152,
    "google/flan-t5-base": 247_577_856,
    "google/flan-t5-large": 783_150_080,
    "google/flan-t5-xl": 2_849_757_184,
    "google/flan-t5-xxl": 11_135_332_352,
    "google-t5/t5-3b": 2_851_598_336,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Llama-2-70b-hf": 68_976_648_192,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "mistralai/Mixtral-8x7B-v0.1": 46_702_792_704,
    "EleutherAI/pythia-12b": 11_846_072_320,
    "bigscience/bloom": 176_247_271_424,
    "Qwen/Qwen-7B": 7_721_324_544,
    "google-bert/bert-base-uncased": 110_106_428,
    "openai-community/gpt2": 124_439_808,
}
"""Counts that publishers or the hub state; Llama-3.2-3B as measured by its fine-tuners, t5-3b by bitsandbytes."""


def test_every_family_asked_for_is_there() -> None:
    assert set(FAMILIES) <= {entry.family for entry in ENTRIES}
    assert len(ENTRIES) >= 200


@pytest.mark.parametrize("name", MEASURED)
def test_every_model_with_a_published_measurement_is_found_by_its_short_name(name: str) -> None:
    facts = CATALOGUE.find(name)

    assert facts is not None
    assert facts.params > 0


@pytest.mark.parametrize(("name", "params"), PUBLISHED.items())
def test_parameters_are_those_published(name: str, params: int) -> None:
    assert CATALOGUE[name].params == params


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_every_line_is_whole_and_agrees_with_its_config(entry: object) -> None:
    facts = CATALOGUE[entry.name]  # type: ignore[attr-defined]

    assert re.match(r"https://", facts.source)
    assert facts.licence_reason.endswith(".")
    assert facts.tasks
    assert set(facts.tasks) <= set(TASKS)
    assert facts.languages
    assert (facts.licence_verdict == "closed") == (not facts.deployable)
    if not facts.deployable:
        assert (facts.params, facts.tensors, facts.context_window) == (0, (), 4096)
        return
    assert facts.architecture == entry.architecture  # type: ignore[attr-defined]
    assert sum(t.numel for t in facts.tensors) == facts.params
    assert facts.published_dtype in DTYPES
    assert facts.context_window is not None
    assert facts.context_window >= 128
    assert (facts.class_params is None) == (not facts.params_note)
    assert 0 < facts.active_params <= facts.params
    if facts.main.experts:
        assert facts.active_params < facts.params


def test_the_flan_t5_count_that_transformers_gets_wrong_is_recorded_with_the_reason() -> None:
    xl = CATALOGUE["google/flan-t5-xl"]

    assert (xl.params, xl.class_params) == (2_849_757_184, 2_783_959_040)
    assert "tie" in xl.params_note


def test_names_are_found_in_any_case_with_and_without_organisation() -> None:
    for name in ("google/flan-t5-xl", "FLAN-T5-XL", " Google/Flan-T5-xl "):
        found = CATALOGUE.find(name)
        assert found is not None
        assert found.name == "google/flan-t5-xl"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown model 'flan-t5-xll'; did you mean google/flan-t5-xl, "):
        CATALOGUE.named("flan-t5-xll")
    with pytest.raises(UserError, match=r"^unknown model 'zzzz'; `berth models` lists those it knows$"):
        CATALOGUE.named("zzzz")


def test_a_part_of_a_name_offers_the_smaller_models_first() -> None:
    near = [CATALOGUE[name].params for name in CATALOGUE.nearest("pythia", limit=8)]

    assert len(near) == 8
    assert near == sorted(near)


def write(folder: Path, csv_text: str = CSV_TEXT, json_text: str = JSON_TEXT) -> Path:
    (folder / MODELS).write_text(csv_text, encoding="utf-8")
    (folder / CONFIGS).write_text(json_text, encoding="utf-8")
    return folder


def test_a_copy_reads_like_the_original(tmp_path: Path) -> None:
    copy = read_catalogue(write(tmp_path))

    assert dict(copy.entries) == dict(CATALOGUE.entries)


@given(cut=st.integers(0, len(CSV_TEXT) - 2))
def test_a_cut_table_is_one_line_that_names_the_file(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = write(tmp_path_factory.mktemp("cut"), csv_text=CSV_TEXT[:cut])

    with pytest.raises(UserError) as told:
        read_catalogue(folder)

    assert MODELS in str(told.value)
    assert "\n" not in str(told.value)


@given(cut=st.integers(0, len(JSON_TEXT) - 3))
def test_cut_shapes_are_one_line_that_names_file_and_line(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = write(tmp_path_factory.mktemp("cut"), json_text=JSON_TEXT[:cut])

    with pytest.raises(UserError, match=rf"{CONFIGS}, line \d+: "):
        read_catalogue(folder)


HEADER, FIRST = CSV_TEXT.splitlines()[:2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: the header lacks name"),
        (HEADER.replace("licence,", ""), "line 1: the header lacks licence"),
        (HEADER, "holds no models"),
        (f"{HEADER}\n{FIRST},more", "line 2: has more fields"),
        (f"{HEADER}\n{FIRST}\na,b", "line 3: has fewer fields"),
        (f"{HEADER}\n{FIRST}\n{FIRST}", "line 3: 'google/flan-t5-small' already names google/flan-t5-small"),
        (f"{HEADER}\n{FIRST.replace('76961152', '76.9M')}", "line 2: params is '76.9M'; it must be a whole number"),
        (f"{HEADER}\n{FIRST.replace('76961152', '-1')}", "line 2: params is '-1'; it must be a whole number"),
        (f"{HEADER}\n{FIRST.replace('business-friendly', 'fine')}", "line 2: verdict is 'fine'; allowed: business"),
        (f"{HEADER}\n{FIRST.replace('encoder-decoder', 'tower')}", "line 2: architecture is 'tower'; allowed: encoder"),
        (f"{HEADER}\n{FIRST.replace('Apache-2.0,', ',', 1)}", "line 2: licence is empty"),
        (f"{HEADER}\n{FIRST[:-3]}", "line 2: as_of is '"),
        (f'{HEADER}\n"{FIRST}', "line 2: "),
        (f'{HEADER}\n{FIRST}\n"never closed', "line 3: unexpected end of data"),
    ],
)
def test_a_damaged_line_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / MODELS).write_text(text, encoding="utf-8")

    with pytest.raises(UserError) as told:
        read_entries(tmp_path / MODELS)

    assert str(tmp_path / MODELS) in str(told.value)
    assert said in str(told.value)


def test_a_missing_or_binary_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"models\.csv: cannot be read \(No such file or directory\)"):
        read_catalogue(tmp_path)
    (tmp_path / MODELS).write_bytes(b"name,\xff\xfe")
    with pytest.raises(UserError, match=r"models\.csv: byte 5 is not UTF-8"):
        read_catalogue(tmp_path)
    (tmp_path / CONFIGS).write_text("[]")
    with pytest.raises(UserError, match=r"configs\.json, line 1: must be an object"):
        read_configs(tmp_path / CONFIGS)


def test_a_line_whose_shape_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"configs\.json: lacks 'google/flan-t5-small', which line 2 of models\.csv"):
        read_catalogue(write(tmp_path, json_text=JSON_TEXT.replace('"google/flan-t5-small":', '"google/other":')))


def one_model(folder: Path, csv_text: str, json_text: str) -> Catalogue:
    """A catalogue whose first model is damaged but readable."""
    return read_catalogue(write(folder, csv_text, json_text))


def test_a_count_that_its_shape_contradicts_is_not_believed(tmp_path: Path) -> None:
    damaged = one_model(tmp_path, CSV_TEXT.replace("76961152", "76961153", 1), JSON_TEXT)

    with pytest.raises(UserError, match=r"'google/flan-t5-small' has 76,961,153 parameters.* describes 76,961,152"):
        damaged["google/flan-t5-small"]


def test_a_shape_that_lacks_a_key_is_named(tmp_path: Path) -> None:
    damaged = one_model(tmp_path, CSV_TEXT, JSON_TEXT.replace('"d_model": 512', '"d_model": null', 1))

    with pytest.raises(UserError, match=r"configs\.json, 'google/flan-t5-small': lacks 'd_model'"):
        damaged["google/flan-t5-small"]


def test_a_word_of_a_name_comes_before_letters_within_one() -> None:
    near = CATALOGUE.nearest("bert")
    assert {name.partition("/")[0] for name in near} == {"google-bert"}
