"""How each model type's layer is written in transformers: the order of its operations, where dropout stands, which
softmax and which norm. Read from `transformers/models/*/modeling_*.py`, release 5.23, and held against it by
`scripts/oracle.py` (operation by operation, on the meta device)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sizing.models.facts import ModelFacts, Stack

Block = Literal["pre", "post", "parallel", "sandwich"]
Norm = Literal["layernorm", "rms", "t5", "gemma"]
Softmax = Literal["same", "upcast", "float"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """A model type's way of writing a layer. Names are those of its linear modules (what LoRA targets match)."""

    block: Block = "pre"
    """pre: norm, attention, sum, norm, MLP, sum. post: attention, sum, norm, MLP, sum, norm. parallel: attention and
    MLP on the same input. sandwich: a norm before and after each."""
    norm: Norm = "layernorm"
    qkv: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    """Three names, or one of a fused projection."""
    out: str = "o_proj"
    cross: tuple[str, ...] = ()
    """Query, key, value, output of the cross-attention; empty: as `qkv` and `out`."""
    up: str = "up_proj"
    gate: str = ""
    """Empty: no gate; the same as `up`: one fused matrix of both."""
    down: str = "down_proj"
    softmax: Softmax = "upcast"
    """same: in the type of the scores; upcast: `softmax(dtype=float32)` and back; float: `.float()`, softmax, back."""
    scores_fp32: bool = False
    """Query and key are made fp32 before they meet (GPT-J)."""
    score_steps: int = 0
    """Saved steps on the scores before the softmax (the tanh of Gemma 2's soft cap)."""
    masked_fill: bool = False
    """Scores are filled by a mask that autograd keeps (one byte, for all heads)."""
    probs_cast: bool = True
    """The probabilities become a tensor of their own before they meet the values."""
    repeat_values: bool = False
    """Keys and values are expanded to all heads before the rotation (Falcon's newer models)."""
    copies_kv: bool = False
    """A single key-value head is picked by an index, which copies it."""
    clamped_experts: bool = False
    """Experts clamp gate and up, and their gate is a sigmoid written out (gpt-oss)."""
    learned_bias: bool = False
    """A learned relative position bias is added to the scores."""
    pooled: bool = False
    """A classifier reads the first token in place, which keeps all of the last hidden states."""
    attention_dropout: bool = True
    output_dropout: bool = True
    """The stack's dropout after the attention's output projection."""
    mlp_dropout: bool = True
    """The stack's dropout after the MLP."""
    inner_dropout: bool = False
    """The stack's dropout between the MLP's two matrices (T5, XLNet)."""
    two_norms: bool = True
    """A parallel block has a norm for each side."""
    embedding_norm: bool = False
    embedding_dropout: bool = False
    final_norm: bool = True
    final_dropout: bool = False
    activation: str = ""
    """Where the config's name is not what runs; empty: the stack's."""
    attentions: tuple[str, ...] = ("eager", "sdpa", "flash")
    """Which implementations the class has."""
    loss_fp32: bool = True
    """Logits are made fp32 before the loss."""
    logits_bias: bool = False
    """A bias, kept in the weights' type, is added to the logits, which widens them under autocast."""
    logits_steps: int = 0
    """Saved steps on the logits (Gemma 2's soft cap)."""
    kind: str = ""
    """A layer that the general program does not describe: deberta, xlnet."""
    repeats_kv: bool = False
    """sdpa and flash see keys and values expanded to all heads."""
    copies_output: bool = False
    """A fused kernel's output is copied: rotating a part of each head leaves queries, and the output, head by head."""


_LLAMA = Dialect(norm="rms", gate="gate_proj")
_T5 = Dialect(
    norm="t5",
    qkv=("q", "k", "v"),
    out="o",
    cross=("q", "k", "v", "o"),
    up="wi",
    down="wo",
    softmax="same",
    inner_dropout=True,
    embedding_dropout=True,
    final_dropout=True,
    attentions=("eager", "sdpa"),
    loss_fp32=False,
    learned_bias=True,
)
_BERT = Dialect(
    block="post",
    qkv=("query", "key", "value"),
    out="attention.output.dense",
    up="intermediate.dense",
    down="output.dense",
    softmax="same",
    embedding_norm=True,
    embedding_dropout=True,
    final_norm=False,
    loss_fp32=False,
)
_BART = Dialect(
    logits_bias=True,
    block="post",
    out="out_proj",
    cross=("q_proj", "k_proj", "v_proj", "out_proj"),
    up="fc1",
    down="fc2",
    softmax="same",
    embedding_norm=True,
    embedding_dropout=True,
    final_norm=False,
    loss_fp32=False,
)
_GEMMA = Dialect(norm="gemma", gate="gate_proj")
_MOE = replace(_LLAMA)

_DIALECTS: dict[str, Dialect] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "granite": _LLAMA,
    "smollm3": _LLAMA,
    "seed_oss": _LLAMA,
    "ernie4_5": _LLAMA,
    "mistral3": _LLAMA,
    "olmo2": replace(_LLAMA, norm="gemma"),
    "olmo3": replace(_LLAMA, norm="gemma"),
    "stablelm": replace(_LLAMA, norm="layernorm"),
    "starcoder2": Dialect(up="c_fc", down="c_proj"),
    "nemotron": Dialect(),
    "cohere": replace(_LLAMA, norm="gemma", block="parallel", two_norms=False),
    "cohere2": replace(_LLAMA, norm="gemma", block="parallel", two_norms=False),
    "glm": replace(_LLAMA, up="gate_up_proj", gate="gate_up_proj"),
    "glm4": replace(_LLAMA, up="gate_up_proj", gate="gate_up_proj", block="sandwich"),
    "granitemoe": _MOE,
    "olmoe": _MOE,
    "glm4_moe": _MOE,
    "gpt_oss": replace(_MOE, softmax="same", clamped_experts=True, attentions=("eager", "flash")),
    "mixtral": _MOE,
    "qwen2_moe": _MOE,
    "qwen3_moe": _MOE,
    "gemma": _GEMMA,
    "gemma2": replace(_GEMMA, block="sandwich", score_steps=1, logits_steps=1, attentions=("eager", "flash")),
    "gemma3": replace(_GEMMA, block="sandwich"),
    "gemma3_text": replace(_GEMMA, block="sandwich"),
    "phi3": replace(_LLAMA, qkv=("qkv_proj",), up="gate_up_proj", gate="gate_up_proj", copies_output=True),
    "phi": Dialect(
        copies_output=True, block="parallel", two_norms=False, out="dense", up="fc1", down="fc2", embedding_dropout=True
    ),
    "t5": _T5,
    "mt5": _T5,
    "umt5": _T5,
    "gpt2": Dialect(
        qkv=("attn.c_attn",),
        out="attn.c_proj",
        up="mlp.c_fc",
        down="mlp.c_proj",
        softmax="same",
        embedding_dropout=True,
    ),
    "gpt_bigcode": Dialect(
        qkv=("attn.c_attn",),
        out="attn.c_proj",
        up="mlp.c_fc",
        down="mlp.c_proj",
        embedding_dropout=True,
    ),
    "gptj": Dialect(
        block="parallel",
        two_norms=False,
        out="out_proj",
        up="fc_in",
        down="fc_out",
        softmax="same",
        scores_fp32=True,
        embedding_dropout=True,
        attentions=("eager", "flash"),
    ),
    "gpt_neox": Dialect(
        copies_output=True,
        block="parallel",
        qkv=("query_key_value",),
        out="attention.dense",
        up="dense_h_to_4h",
        down="dense_4h_to_h",
        embedding_dropout=True,
    ),
    "opt": Dialect(out="out_proj", up="fc1", down="fc2"),
    "bloom": Dialect(
        qkv=("query_key_value",),
        out="self_attention.dense",
        up="dense_h_to_4h",
        down="dense_4h_to_h",
        embedding_norm=True,
        activation="gelu",
        attentions=("eager",),
    ),
    "falcon": Dialect(
        block="parallel",
        two_norms=False,
        qkv=("query_key_value",),
        out="self_attention.dense",
        up="dense_h_to_4h",
        down="dense_4h_to_h",
        softmax="same",
        probs_cast=False,
        attention_dropout=False,
        output_dropout=False,
        copies_kv=True,
    ),
    "mpt": Dialect(
        qkv=("Wqkv",),
        out="out_proj",
        up="up_proj",
        down="down_proj",
        softmax="float",
        masked_fill=True,
        output_dropout=True,
        attentions=("eager",),
    ),
    "bart": _BART,
    "mbart": replace(_BART, block="pre", final_norm=True),
    "pegasus": replace(_BART, block="pre", final_norm=True, embedding_norm=False),
    "blenderbot": replace(_BART, block="pre", final_norm=True, embedding_norm=False),
    "m2m_100": replace(_BART, block="pre", final_norm=True, embedding_norm=False, logits_bias=False),
    "marian": replace(_BART, embedding_norm=False),
    "bert": replace(_BERT, pooled=True),
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": _BERT,
    "distilbert": replace(
        _BERT, qkv=("q_lin", "k_lin", "v_lin"), out="out_lin", up="lin1", down="lin2", output_dropout=False, pooled=True
    ),
    "deberta-v2": replace(
        _BERT, qkv=("query_proj", "key_proj", "value_proj"), kind="deberta", pooled=True, attentions=("eager",)
    ),
    "xlnet": Dialect(
        block="post",
        qkv=("q", "k", "v"),
        out="o",
        up="layer_1",
        down="layer_2",
        softmax="same",
        inner_dropout=True,
        embedding_dropout=True,
        final_norm=False,
        final_dropout=True,
        kind="xlnet",
        attentions=("eager",),
    ),
    # Qwen's own code (huggingface.co/Qwen/Qwen-7B, modeling_qwen.py): fused c_attn, w1 times silu(w2).
    "qwen": replace(_LLAMA, qkv=("c_attn",), out="attn.c_proj", up="w1", gate="w2", down="mlp.c_proj", loss_fp32=False),
}


def dialect_of(model: ModelFacts) -> Dialect:
    """The dialect of `model`'s type; for a type without one, what its stack says of norms and gates."""
    stack = model.main
    found = _DIALECTS.get(model.model_type)
    if found is None:
        found = Dialect(norm="rms" if stack.norm == "rmsnorm" else "layernorm", block=_block(stack))
        if stack.gated:
            found = replace(found, gate="gate_proj")
    if model.model_type in ("t5", "mt5", "umt5") and stack.gated:
        silu = stack.activation in ("silu", "swish")
        found = replace(found, up="wi_1", gate="wi_0", activation="silu" if silu else "gelu_new")
    if model.model_type == "falcon":
        names = {t.name.rsplit(".", 2)[-2] for t in model.tensors if t.kind == "norm"}
        grouped = 1 < stack.kv_heads < stack.heads
        if not stack.parallel_residual:
            found = replace(found, block="pre")
        elif "ln_mlp" in names:
            found = replace(found, two_norms=True)
        if grouped:
            found = replace(found, repeat_values=True)
    if model.model_type in ("gpt_neox", "gptj", "phi") and not stack.parallel_residual:
        found = replace(found, block="pre")
    return found


def _block(stack: Stack) -> Block:
    return "parallel" if stack.parallel_residual else "pre"
