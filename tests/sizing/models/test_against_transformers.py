"""Every catalogue model that transformers has a class for, built on the meta device: equal to the last parameter."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import transformers

from sizing.models.catalogue import load_catalogue
from sizing.models.facts import Tensor
from sizing.models.families.layout import Config
from sizing.models.read import layout_of

transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]

CATALOGUE = load_catalogue()
ENTRIES = [e for e in CATALOGUE.entries.values() if e.config]
BERTHS_OWN = ("architectures", "model_type", "checkpoint_class", "quantization_config")
RENAMED = {"MPTForCausalLM": "MptForCausalLM"}
NOT_IN_TRANSFORMERS = {"QWenLMHeadModel"}
"""Qwen's first generation comes with code of its own."""


def build(config: Config, architecture: str) -> Any:
    """The model of `config` without memory: parameters on the meta device."""
    model_class = getattr(transformers, RENAMED.get(architecture, architecture))
    keys = {k: v for k, v in config.items() if k not in BERTHS_OWN}
    with torch.device("meta"):
        return model_class(model_class.config_class(**keys))


def count(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


def unnumbered(name: str) -> str:
    return re.sub(r"\.\d+", "", name)


def is_expert(name: str) -> bool:
    return ".experts" in name


def stored(tensors: tuple[Tensor, ...]) -> list[Tensor]:
    return [t for t in tensors if not t.tied_to]


def shapes(pairs: Mapping[Any, int] | list[tuple[tuple[int, ...], int]]) -> Counter[tuple[int, ...]]:
    """How often each shape is there, whichever way a matrix lies (GPT-2 keeps [in, out])."""
    found: Counter[tuple[int, ...]] = Counter()
    for shape, number in pairs if isinstance(pairs, list) else list(pairs.items()):
        found[tuple(sorted(shape))] += number
    return found


def first_of_each_shape() -> list[Any]:
    """One catalogue entry a config."""
    return list({e.config: e for e in reversed(ENTRIES)}.values())[::-1]


@pytest.mark.parametrize("entry", first_of_each_shape(), ids=lambda e: e.name)
def test_layout_equals_the_class(entry: Any) -> None:
    facts, config = CATALOGUE[entry.name], CATALOGUE.configs[entry.config]
    architecture = config["architectures"][0]
    if architecture in NOT_IN_TRANSFORMERS:
        assert not hasattr(transformers, architecture)
        pytest.skip(f"transformers has no {architecture}")
    model = build(config, architecture)

    assert count(model) == (facts.class_params or facts.params)

    if "checkpoint_class" in config:
        model = build(config, config["checkpoint_class"])
        assert count(model) == facts.params
    tensors = stored(facts.tensors)
    if facts.class_params is not None and "checkpoint_class" not in config:
        # The published checkpoint's own output layer, which the class ties away.
        tensors = [t for t in tensors if t.name != "lm_head.weight"]
    # transformers 5 stacks a layer's experts in one tensor; their sum is in the count above.
    got = shapes([(t.shape, t.count) for t in tensors if not t.expert])
    want = shapes([(tuple(p.shape), 1) for n, p in model.named_parameters() if not is_expert(n)])
    assert got == want


def test_models_that_share_a_shape_share_its_count() -> None:
    for entry in ENTRIES:
        assert entry.params == CATALOGUE[entry.name].params
        assert entry.params == layout_of(CATALOGUE.configs[entry.config]).params


SMALL: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 100, "vocab_size": 99, "pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
ENCODER: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 100, "vocab_size": 99,
    "max_position_embeddings": 50,
}  # fmt: skip
SEQ2SEQ: dict[str, Any] = {
    "d_model": 64, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 8,
    "encoder_ffn_dim": 100, "decoder_ffn_dim": 120, "vocab_size": 99, "max_position_embeddings": 50, "pad_token_id": 1,
    "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
}  # fmt: skip
DISENTANGLED = ENCODER | {
    "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False,
    "pooler_hidden_size": 64,
}  # fmt: skip
LATENT: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 100, "vocab_size": 99,
    "moe_intermediate_size": 20, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 2,
    "first_k_dense_replace": 1, "kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8, "qk_nope_head_dim": 12,
    "v_head_dim": 10, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
HEADS = ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "Model")
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("LlamaForCausalLM", SMALL | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("LlamaForSequenceClassification", SMALL | {"num_labels": 5}),
    ("LlamaModel", SMALL),
    ("Qwen2MoeForCausalLM", SMALL | {
        "moe_intermediate_size": 64, "shared_expert_intermediate_size": 96, "num_experts": 4, "num_experts_per_tok": 2,
    }),
    ("Qwen3MoeForCausalLM", SMALL | {
        "moe_intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2, "mlp_only_layers": [1], "head_dim": 32,
    }),
    ("SmolLM3ForCausalLM", SMALL),
    ("Olmo2ForCausalLM", SMALL),
    ("Olmo3ForCausalLM", SMALL | {"sliding_window": 8}),
    ("OlmoeForCausalLM", SMALL | {"num_experts": 4, "num_experts_per_tok": 2}),
    ("Starcoder2ForCausalLM", SMALL),
    ("Starcoder2ForCausalLM", SMALL | {"use_bias": False, "tie_word_embeddings": False}),
    ("CohereForCausalLM", SMALL | {"use_qk_norm": True}),
    ("Cohere2ForCausalLM", SMALL | {"attention_bias": True}),
    ("GlmForCausalLM", SMALL | {"head_dim": 16, "attention_bias": True}),
    ("Glm4ForCausalLM", SMALL | {"head_dim": 16, "attention_bias": True}),
    ("NemotronForCausalLM", SMALL | {"mlp_bias": True}),
    ("StableLmForCausalLM", SMALL | {"use_qkv_bias": True}),
    ("SeedOssForCausalLM", SMALL | {"head_dim": 32, "attention_bias": True, "attention_out_bias": True}),
    ("Ernie4_5ForCausalLM", SMALL | {"head_dim": 32, "use_bias": True}),
    *(
        ("Glm4MoeForCausalLM", SMALL | {
            "head_dim": 16, "attention_bias": True, "moe_intermediate_size": 40, "n_routed_experts": 4,
            "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1, "use_qk_norm": normed,
        })
        for normed in (False, True)
    ),
    ("GraniteMoeForCausalLM", SMALL | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    *(
        ("GraniteMoeHybridForCausalLM", SMALL | {
            "shared_intermediate_size": 40, "num_local_experts": number, "num_experts_per_tok": min(2, number),
            "mamba_n_heads": 8, "mamba_d_state": 16, "layer_types": ["mamba", "attention", "mamba"],
        })
        for number in (0, 4)
    ),
    ("Mistral3ForConditionalGeneration", {
        "text_config": {"model_type": "mistral"} | SMALL,
        "vision_config": {
            "model_type": "pixtral", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 48, "patch_size": 14, "image_size": 56, "head_dim": 8,
        },
        "tie_word_embeddings": False,
    }),
    *(
        (f"ModernBert{head}", ENCODER | {"num_labels": 5, "mlp_bias": True, "pad_token_id": 0, "norm_bias": True})
        for head in ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "Model")
    ),
    ("OPTForCausalLM", {
        "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 8, "ffn_dim": 512, "vocab_size": 99,
        "word_embed_proj_dim": 64, "do_layer_norm_before": False,
    }),
    ("GPTBigCodeForCausalLM", {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 99, "multi_query": False}),
    ("FalconForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 99, "multi_query": False,
        "parallel_attn": False, "bias": True, "alibi": True,
    }),
    ("FalconForCausalLM", {
        "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 99, "num_kv_heads": 2,
        "new_decoder_architecture": True, "num_ln_in_parallel_attn": 1,
    }),
    ("PhiForCausalLM", SMALL | {"qk_layernorm": True}),
    ("Gemma2ForCausalLM", SMALL | {"head_dim": 32}),
    ("DeepseekV2ForCausalLM", LATENT),
    ("DeepseekV2ForCausalLM", LATENT | {"q_lora_rank": None}),
    ("DeepseekV3ForCausalLM", LATENT | {"n_group": 1, "topk_group": 1}),
    *((f"{kind}ForConditionalGeneration", SEQ2SEQ) for kind in ("Bart", "MBart", "Pegasus", "Blenderbot", "M2M100")),
    ("MarianMTModel", SEQ2SEQ),
    ("MarianMTModel", SEQ2SEQ | {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 77}),
    ("BartForSequenceClassification", SEQ2SEQ | {"num_labels": 3}),
    ("T5ForConditionalGeneration", {
        "d_model": 64, "d_kv": 8, "d_ff": 100, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4,
        "vocab_size": 99,
    }),
    ("UMT5ForConditionalGeneration", {
        "d_model": 64, "d_kv": 8, "d_ff": 100, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4,
        "vocab_size": 99,
        "tie_word_embeddings": True,
    }),
    *(
        (f"{kind}{head}", ENCODER | {"num_labels": 5})
        for kind in ("Bert", "Roberta", "XLMRoberta")
        for head in HEADS
    ),
    *((f"{kind}ForMaskedLM", DISENTANGLED) for kind in ("Deberta", "DebertaV2")),
    ("DebertaV2ForTokenClassification", DISENTANGLED | {"num_labels": 5, "type_vocab_size": 2}),
    ("DebertaV2ForMaskedLM", DISENTANGLED | {
        "share_att_key": True, "position_buckets": 16, "norm_rel_ebd": "layer_norm", "conv_kernel_size": 3,
    }),
    *(
        (f"DistilBert{head}", {
            "dim": 64, "n_layers": 3, "n_heads": 4, "hidden_dim": 100, "vocab_size": 99, "max_position_embeddings": 50,
        })
        for head in ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "Model")
    ),
    ("AlbertForSequenceClassification", ENCODER | {"embedding_size": 16}),
    ("XLNetForSequenceClassification", {
        "d_model": 64, "n_layer": 3, "n_head": 4, "d_inner": 100, "vocab_size": 99, "num_labels": 3,
    }),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "config"), VARIANTS, ids=lambda v: v if isinstance(v, str) else "")
def test_switches_and_heads_that_no_catalogue_model_has(architecture: str, config: dict[str, Any]) -> None:
    model = build(config, architecture)
    model_type = type(model.config).model_type
    layout = layout_of(config | {"architectures": [architecture], "model_type": model_type})

    assert layout.params == count(model)
    got = shapes([(t.shape, t.count) for t in stored(layout.tensors) if not t.expert])
    assert got == shapes([(tuple(p.shape), 1) for n, p in model.named_parameters() if not is_expert(n)])


def test_names_are_those_of_the_class() -> None:
    config = SMALL | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    model = build(config, "LlamaForCausalLM")

    assert {t.name for t in layout_of(config).tensors} == {unnumbered(n) for n, _ in model.named_parameters()}


def test_what_transformers_keeps_in_fp32_is_marked() -> None:
    kept = {t.name for t in CATALOGUE["google/flan-t5-xl"].tensors if t.keep_fp32}

    assert kept == {f"{part}.block.layer.DenseReluDense.wo.weight" for part in ("encoder", "decoder")}
