"""How transformers' eager code of each model type differs in what it keeps alive.

Read from transformers 5.23.0 (`models/*/modeling_*.py`) and checked to a few percent against live bytes of real passes
(`scripts/oracle_inference.py`). A type that is not listed is taken as the plainest of its kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Quirks:
    """What a model type does in a layer. All flags are about memory."""

    fp32_softmax: bool = False
    """Scores are taken to fp32 for the softmax."""
    fp32_scores: bool = False
    """Queries and keys are taken to fp32 before they are multiplied."""
    keeps_raw_scores: bool = False
    """The product of queries and keys lives on beside the masked scores."""
    fused_qkv: bool = False
    """One matrix makes queries, keys and values; they are views of its output, which lives as long as they do."""
    fused_gate: bool = False
    """One matrix makes gate and up."""
    holds_weights: Literal["", "layer", "next"] = "layer"
    """How long a layer's eager attention weights live: to the layer's end, or until the next layer replaces them."""
    holds_attention_output: bool = False
    """The attention's output lives through the MLP."""
    post_norm: bool = False
    """Norms come after the residual sums."""
    held_inputs: int = 1
    """Tensors of the embeddings' size that the caller holds while the layers run."""
    eager_only: bool = False
    """transformers has no sdpa for it, nor flash unless `has_flash`."""
    has_flash: bool = False
    sinks: bool = False
    """A learned logit a head joins the scores before the softmax."""
    shared_first: bool = False
    """What all tokens pass beside the experts is computed before them."""
    clamped_experts: bool = False
    """Experts have biases, gathered for every row, and clamp gate and up in steps of their own."""


PLAIN = Quirks()
_FP32_SOFTMAX = Quirks(fp32_softmax=True)
_BERT = Quirks(post_norm=True)
QUIRKS: dict[str, Quirks] = {
    "llama": _FP32_SOFTMAX,
    "mistral": _FP32_SOFTMAX,
    "mixtral": _FP32_SOFTMAX,
    "qwen2": _FP32_SOFTMAX,
    "qwen2_moe": Quirks(fp32_softmax=True, shared_first=True),
    "qwen3": _FP32_SOFTMAX,
    "qwen3_moe": _FP32_SOFTMAX,
    "granite": _FP32_SOFTMAX,
    "smollm3": _FP32_SOFTMAX,
    "olmo2": _FP32_SOFTMAX,
    "olmo3": _FP32_SOFTMAX,
    "olmoe": _FP32_SOFTMAX,
    "starcoder2": _FP32_SOFTMAX,
    "cohere": _FP32_SOFTMAX,
    "cohere2": _FP32_SOFTMAX,
    "glm": Quirks(fp32_softmax=True, fused_gate=True),
    "glm4": Quirks(fp32_softmax=True, fused_gate=True),
    "nemotron": _FP32_SOFTMAX,
    "stablelm": _FP32_SOFTMAX,
    "seed_oss": _FP32_SOFTMAX,
    "ernie4_5": _FP32_SOFTMAX,
    "glm4_moe": _FP32_SOFTMAX,
    "granitemoe": _FP32_SOFTMAX,
    "granitemoehybrid": _FP32_SOFTMAX,
    "mistral3": _FP32_SOFTMAX,
    "modernbert": Quirks(fp32_softmax=True, fused_qkv=True, fused_gate=True),
    "gemma": _FP32_SOFTMAX,
    "gemma2": Quirks(fp32_softmax=True, eager_only=True, has_flash=True),
    "gemma3": _FP32_SOFTMAX,
    "gemma3_text": _FP32_SOFTMAX,
    "gpt_oss": Quirks(eager_only=True, sinks=True, clamped_experts=True),
    "deepseek_v2": _FP32_SOFTMAX,
    "deepseek_v3": _FP32_SOFTMAX,
    "opt": _FP32_SOFTMAX,
    "phi": Quirks(fp32_softmax=True, holds_weights=""),
    "phi3": Quirks(fp32_softmax=True, fused_qkv=True, fused_gate=True),
    "gpt_neox": Quirks(fp32_softmax=True, fused_qkv=True, holds_weights=""),
    "gpt_bigcode": Quirks(fp32_softmax=True, fused_qkv=True, holds_attention_output=True, held_inputs=2),
    "gpt2": Quirks(fused_qkv=True, holds_attention_output=True, held_inputs=2),
    "gptj": Quirks(fp32_scores=True, holds_weights="next", eager_only=True, has_flash=True),
    "gpt_neo": Quirks(fp32_scores=True, holds_weights="next", eager_only=True, has_flash=True),
    "bloom": Quirks(fp32_softmax=True, fused_qkv=True, keeps_raw_scores=True, holds_weights="next", eager_only=True),
    "falcon": Quirks(fused_qkv=True, holds_weights="next", keeps_raw_scores=True),
    "mpt": Quirks(fp32_softmax=True, fused_qkv=True, keeps_raw_scores=True, eager_only=True),
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "distilbert": _BERT,
    "camembert": _BERT,
    "albert": _BERT,
    "deberta": Quirks(post_norm=True, eager_only=True),
    "deberta-v2": Quirks(post_norm=True, eager_only=True),
    "xlnet": Quirks(post_norm=True, eager_only=True),
    "bart": Quirks(post_norm=True, held_inputs=2),
    "marian": Quirks(post_norm=True, held_inputs=2),
    "mbart": Quirks(held_inputs=2),
    "pegasus": Quirks(held_inputs=2),
    "blenderbot": Quirks(held_inputs=2),
    "m2m_100": Quirks(held_inputs=2),
    "t5": PLAIN,
    "mt5": PLAIN,
    "umt5": PLAIN,
}


def quirks_of(model_type: str) -> Quirks:
    """The quirks of transformers' `model_type`."""
    return QUIRKS.get(model_type, PLAIN)
