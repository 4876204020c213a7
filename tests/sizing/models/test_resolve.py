"""What a person may name: catalogue models, folders, files saved by transformers; and one line for every mistake."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from model_files import LLAMA, Entries, tensors_of, write_config, write_model, write_shards

from sizing.errors import UserError
from sizing.models.catalogue import load_catalogue
from sizing.models.facts import ModelFacts
from sizing.models.read import FAMILIES, facts_from_config, layout_of
from sizing.models.resolve import resolve_model

transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]

PARAMS = layout_of(LLAMA).params


def refused(what: str | Path) -> str:
    """The line that `what` is refused with."""
    with pytest.raises(UserError) as told:
        resolve_model(str(what))
    assert "\n" not in str(told.value)
    return str(told.value)


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in LLAMA.items() if k != key}


# Names


@pytest.mark.parametrize("text", ["google/flan-t5-xl", "flan-t5-xl", "FLAN-T5-XL", " flan-t5-xl "])
def test_a_catalogue_model_goes_by_name_alias_and_any_case(text: str) -> None:
    assert resolve_model(text) is load_catalogue()["google/flan-t5-xl"]


def test_an_unknown_name_offers_the_nearest_and_the_other_ways() -> None:
    said = refused("google/flan-t5-xll")

    assert said.startswith("unknown model 'google/flan-t5-xll': it is not in the catalogue, and the hub was not asked")
    assert "did you mean google/flan-t5-xl, google/flan-t5-xxl" in said
    assert "a folder with its config.json does as well: berth size ./folder" in said


def test_a_closed_model_is_refused_with_the_reason() -> None:
    assert refused("chatgpt").startswith("openai/gpt-3.5-turbo cannot be deployed: Weights are not published")


@pytest.mark.parametrize("text", ["", "  "])
def test_no_name_is_told(text: str) -> None:
    assert refused(text).startswith("no model given")


def test_a_path_that_is_not_there_is_told() -> None:
    assert refused("./nope") == (
        "'./nope': no such folder; a model is a catalogue name (berth models), org/name, or a folder"
    )


def test_a_folder_in_the_working_directory_goes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "mine" / "model")
    (tmp_path / "gpt2").mkdir()  # no config.json: not a model's folder
    monkeypatch.chdir(tmp_path)

    assert resolve_model("mine/model").params == PARAMS
    assert resolve_model("gpt2").params == 124_439_808


@given(text=st.text(max_size=40) | st.text(st.sampled_from("./~ab\0\n"), max_size=12) | st.just("x" * 6000))
def test_whatever_is_typed_is_a_model_or_one_line(text: str) -> None:
    try:
        facts = resolve_model(text)
    except UserError as told:
        assert "\n" not in str(told)
        assert len(str(told)) < 600
    else:
        assert facts.params > 0


# Folders


def test_headers_make_parameters_bytes_and_dtype_exact(tmp_path: Path) -> None:
    facts = resolve_model(str(write_model(tmp_path / "m")))

    assert (facts.name, facts.params, facts.stored_bytes, facts.published_dtype) == ("m", PARAMS, 2 * PARAMS, "bf16")
    assert facts.tensors == layout_of(LLAMA).tensors
    assert facts.main.kv_heads == 2
    assert facts.licence_verdict == "unknown"


def test_the_config_itself_may_be_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")

    assert resolve_model(str(folder / "config.json")).params == PARAMS
    assert "is a file; give the folder" in refused(folder / "model.safetensors")


def test_shards_count_together(tmp_path: Path) -> None:
    tensors = list(tensors_of(LLAMA).items())
    folder = write_config(tmp_path / "m", LLAMA)
    write_shards(folder, [dict(tensors[:10]), dict(tensors[10:])])

    facts = resolve_model(str(folder))

    assert (facts.params, facts.stored_bytes) == (PARAMS, 2 * PARAMS)


def test_without_safetensors_the_config_counts_and_says_so(tmp_path: Path) -> None:
    facts = resolve_model(str(write_config(tmp_path / "m", LLAMA)))

    assert (facts.params, facts.stored_bytes) == (PARAMS, None)
    assert "no safetensors header read: parameters are those config.json describes" in facts.notes


def test_a_config_equals_the_catalogue_that_was_made_from_it(tmp_path: Path) -> None:
    for name in (
        "google/flan-t5-xl",
        "mistralai/Mixtral-8x7B-v0.1",
        "google/gemma-3-4b-it",
        "microsoft/deberta-v3-base",
    ):
        known = load_catalogue()[name]
        folder = write_config(tmp_path / name.split("/")[1], load_catalogue().configs[name])

        facts = resolve_model(str(folder))

        assert (facts.params, facts.tensors, facts.stacks) == (known.params, known.tensors, known.stacks)


SAVED: list[tuple[str, dict[str, Any]]] = [
    ("LlamaForCausalLM", LLAMA | {"tie_word_embeddings": True}),
    ("GPT2LMHeadModel", {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 99}),
    ("MixtralForCausalLM", LLAMA | {"num_local_experts": 4}),
    ("GptOssForCausalLM", LLAMA | {"num_local_experts": 4, "head_dim": 16, "num_experts_per_tok": 2}),
    ("T5ForConditionalGeneration", {
        "d_model": 64, "d_kv": 8, "d_ff": 96, "num_layers": 2, "num_heads": 4, "vocab_size": 99,
    }),
    ("BartForConditionalGeneration", {
        "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "vocab_size": 99,
    }),
    ("MarianMTModel", {
        "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "pad_token_id": 1,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "vocab_size": 99,
        "decoder_start_token_id": 1,
    }),
    ("BertForPreTraining", {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "vocab_size": 99,
    }),
    ("XLNetLMHeadModel", {"d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 96, "vocab_size": 99}),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "config"), SAVED, ids=lambda v: v if isinstance(v, str) else "")
def test_a_model_saved_by_transformers_is_read_to_the_last_parameter(
    architecture: str, config: dict[str, Any], tmp_path: Path
) -> None:
    model_class = getattr(transformers, architecture)
    keys = {k: v for k, v in config.items() if k not in ("architectures", "model_type", "torch_dtype")}
    model = model_class(model_class.config_class(**keys)).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="60KB")

    facts = resolve_model(str(tmp_path))

    assert facts.params == sum(p.numel() for p in model.parameters())
    assert facts.published_dtype == "bf16"
    assert facts.stored_bytes is not None


def test_a_type_that_berth_does_not_know_is_sized_from_its_header(tmp_path: Path) -> None:
    config = LLAMA | {"model_type": "newcomer", "architectures": ["NewcomerForCausalLM"]}
    facts = resolve_model(str(write_model(tmp_path / "m", config, tensors_of(LLAMA))))

    assert (facts.params, facts.architecture) == (PARAMS, "decoder-only")
    assert (facts.main.layers, facts.main.kv_heads, facts.main.head_dim) == (3, 2, 16)
    linear = facts.numel(lambda t: t.kind == "linear")
    assert linear == sum(t.numel for t in layout_of(LLAMA).tensors if t.kind == "linear")
    assert "an assumption" in facts.notes[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architectures": ["NewcomerModel"]}, "'NewcomerModel' is no decoder"),
        ({"is_encoder_decoder": True}, "is no decoder"),
        ({"hidden_size": None}, "it lacks hidden_size, without which its cache cannot be sized"),
    ],
)
def test_a_stranger_that_is_no_plain_decoder_is_told(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    config = LLAMA | {"model_type": "newcomer", "architectures": ["NewcomerForCausalLM"]} | change

    line = refused(write_model(tmp_path / "m", config, tensors_of(LLAMA)))

    assert "model type 'newcomer' is none of Berth's families" in line
    assert said in line


def test_a_stranger_without_header_is_told(tmp_path: Path) -> None:
    line = refused(write_config(tmp_path / "m", LLAMA | {"model_type": "newcomer"}))

    assert "without a safetensors header its size cannot be read; known: " in line


def test_a_quantized_checkpoint_keeps_its_parameters_and_says_how_it_is_stored(tmp_path: Path) -> None:
    packed: Entries = {"model.layers.0.self_attn.q_proj.qweight": ("I32", (8, 64)), "model.norm.weight": ("F16", (64,))}
    config = LLAMA | {"quantization_config": {"quant_method": "gptq", "bits": 4}}

    facts = resolve_model(str(write_model(tmp_path / "m", config, packed)))

    assert (facts.params, facts.published_dtype, facts.stored_bytes) == (PARAMS, "gptq-int4", 8 * 64 * 4 + 128)


# Configs that lie


def renamed(entries: Entries, change: Callable[[str], str]) -> Entries:
    return {change(name): entry for name, entry in entries.items()}


def test_buffers_and_second_copies_are_no_parameters(tmp_path: Path) -> None:
    config = LLAMA | {"tie_word_embeddings": True}
    entries = tensors_of(config) | {
        "lm_head.weight": ("BF16", (999, 64)),
        "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", (8,)),
        "model.layers.0.attn.bias": ("F32", (1, 1, 32, 32)),
        "embeddings.position_ids": ("I64", (1, 512)),
    }

    facts = resolve_model(str(write_model(tmp_path / "m", config, entries)))

    assert facts.params == layout_of(config).params


def test_heads_may_be_missing_or_more(tmp_path: Path) -> None:
    entries = tensors_of(LLAMA)
    body = {n: e for n, e in entries.items() if n != "lm_head.weight"}
    scored = body | {"score.weight": ("BF16", (5, 64))}

    bare = resolve_model(str(write_model(tmp_path / "bare", LLAMA, body)))
    other = resolve_model(str(write_model(tmp_path / "other", LLAMA, scored)))

    assert bare.params == PARAMS - 999 * 64
    assert other.params == PARAMS - 999 * 64 + 5 * 64
    assert sum(t.numel for t in other.tensors) == other.params
    assert "in its heads" in other.notes[-1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_hidden_layers": 2}, "'model.layers.self_attn.q_proj.weight' is there 2 times by the config and 3 times"),
        ({"num_hidden_layers": 4}, "is there 4 times by the config and 3 times in the files"),
        ({"vocab_size": 1000}, "'model.embed_tokens.weight' is [1000, 64] by the config and [999, 64] in the files"),
        ({"intermediate_size": 128}, "mlp.gate_proj.weight' is [128, 64] by the config and [112, 64] in the files"),
        ({"num_key_value_heads": 4}, "self_attn.k_proj.weight' is [64, 64] by the config and [32, 64] in the files"),
        ({"hidden_size": 32, "head_dim": 16}, "'model.embed_tokens.weight' is [999, 32] by the config and [999, 64]"),
        ({"model_type": "qwen2"}, "config.json and weights disagree"),
        ({"model_type": "mixtral", "num_local_experts": 4}, "config.json and weights disagree"),
    ],
)
def test_a_config_that_lies_about_its_shape_is_told(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    line = refused(write_model(tmp_path / "m", LLAMA | change, tensors_of(LLAMA)))

    assert line.startswith(f"{tmp_path / 'm'}: config.json and weights disagree: the config describes ")
    assert said in line


def test_an_index_that_names_what_is_not_there_is_told(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "m", LLAMA)
    parts = [tensors_of(LLAMA)]
    shard = "model-00001-of-00001.safetensors"
    for weight_map, said in (
        ({"a": "gone.safetensors"}, "gone.safetensors: is missing"),
        ({"a": "../x"}, "'a' is in '../x'; a shard is a file beside the index"),
        ({"a": 3}, "a shard is a file beside the index"),
        ({"a": shard}, "names 'a', which none of its shards holds"),
        ({}, "lacks 'weight_map'"),
    ):
        write_shards(folder, parts, weight_map)  # type: ignore[arg-type]
        assert said in refused(folder)


def test_a_tensor_in_two_shards_is_told(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "m", LLAMA)
    write_shards(folder, [{"a": ("F32", (2,))}, {"a": ("F32", (2,)), "b": ("F32", (2,))}], None)
    index = folder / "model.safetensors.index.json"
    shards = sorted(p.name for p in folder.glob("*.safetensors"))
    index.write_text(json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}))

    assert "'a' is in another shard as well" in refused(folder)


# Configs that are wrong


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "config.json: not JSON (Expecting property name"),
        ("[1]", "config.json: must be a JSON object, is a list"),
        ("[" * 100_000, "config.json: nested too deeply"),
        ("", "config.json: not JSON"),
        (without("hidden_size"), "config.json: lacks 'hidden_size'"),
        (without("model_type"), "config.json: lacks 'model_type'"),
        (LLAMA | {"model_type": 7}, "config.json: lacks 'model_type'"),
        (LLAMA | {"hidden_size": -64}, "'hidden_size' is -64; it must be a whole number of at least 1"),
        (LLAMA | {"hidden_size": 0}, "'hidden_size' is 0; it must be"),
        (LLAMA | {"hidden_size": 64.0}, "'hidden_size' is 64.0; it must be a whole number"),
        (LLAMA | {"hidden_size": math.nan}, "'hidden_size' is nan; it must be"),
        (LLAMA | {"hidden_size": True}, "'hidden_size' is True; it must be"),
        (LLAMA | {"num_hidden_layers": "3"}, "'num_hidden_layers' is '3'; it must be"),
        (LLAMA | {"num_hidden_layers": 10**9}, "'num_hidden_layers' is 1,000,000,000; no model goes beyond 10,000"),
        (LLAMA | {"vocab_size": 10**12}, "no model goes beyond 10,000,000"),
        (LLAMA | {"num_key_value_heads": 3}, "4 attention heads cannot share 3 key-value heads"),
        (LLAMA | {"num_attention_heads": 6}, "64 cannot be shared out over 6 attention heads"),
        (LLAMA | {"attention_dropout": 2}, "'attention_dropout' is 2; it must be a probability between 0 and 1"),
        (LLAMA | {"attention_dropout": math.nan}, "'attention_dropout' is nan; it must be a probability"),
        (LLAMA | {"tie_word_embeddings": "yes"}, "'tie_word_embeddings' is 'yes'; it must be true or false"),
        (LLAMA | {"sliding_window": 0}, "'sliding_window' is 0; it must be"),
        (LLAMA | {"layer_types": ["full_attention"], "sliding_window": 8}, "'layer_types' names 1 layers"),
        (LLAMA | {"hidden_size": 10**6, "num_hidden_layers": 10_000}, "parameters; no model goes beyond 1e+14"),
    ],
)  # fmt: skip
def test_a_config_that_is_wrong_names_the_key(config: Any, said: str, tmp_path: Path) -> None:
    line = refused(write_config(tmp_path / "m", config))

    assert line.startswith(str(tmp_path / "m"))
    assert said in line


def test_a_folder_without_config_is_told_and_an_adapter_is_recognised(tmp_path: Path) -> None:
    assert "has no config.json; give a model's folder" in refused(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "holds a LoRA adapter, not a model" in refused(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data())
def test_any_config_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    """Each family's own config with some keys replaced by anything at all."""
    catalogue = load_catalogue()
    config = dict(catalogue.configs[data.draw(st.sampled_from(sorted(catalogue.configs)))])
    for key in data.draw(st.lists(st.sampled_from(sorted(config)), max_size=3, unique=True)):
        config[key] = data.draw(json_values)
    if data.draw(st.booleans()):
        config["model_type"] = data.draw(st.sampled_from(sorted(FAMILIES)))

    try:
        facts = facts_from_config(config, name="x")
    except UserError as told:
        assert "\n" not in str(told)
        return
    assert isinstance(facts, ModelFacts)
    assert facts.params == sum(t.numel for t in facts.tensors) > 0
    assert 0 < facts.active_params <= facts.params
    assert all(size > 0 for t in facts.tensors for size in t.shape)
    assert all(a.layers > 0 for s in facts.stacks for a in s.attention)
    assert all(sum(a.layers for a in s.attention) == s.layers for s in facts.stacks)
