"""The habits of serving engines that change how much memory the same model takes.

Each habit is read from the engine's source or shown by measurements; `berth memory` predicts `transformers` (what
Berth's own handler runs) unless told otherwise. The others exist so that published measurements are compared with what
made them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sizing.errors import unknown

CacheStyle = Literal["grow", "grow-copy", "static"]
"""How the KV cache gets longer.

- grow: one layer at a time by concatenation (`DynamicLayer.update`): a layer's keys stand twice for a moment.
- grow-copy: a whole new cache a step, the old one kept until the step ends (tuples before transformers 4.42): twice.
- static: allocated once for the whole length.
"""


@dataclass(frozen=True, slots=True)
class Engine:
    """What an engine does with memory; each names only the habits that differ. `source` says where that was read."""

    name: str
    label: str
    cache: CacheStyle
    source: str
    all_logits: bool = False
    """Logits of every prompt token in fp32 (transformers before 4.45), not of the last one."""
    rotary_tables: bool = False
    """Cosine and sine tables of the whole context window in every layer (transformers before 4.45)."""
    quantizes_head: bool = False
    """The output projection is quantized too (Lightning replaces every `nn.Linear`)."""
    dequantize_copies: int = 1
    """Copies of the largest 4-bit matrix in the compute dtype while it is multiplied."""
    keeps_whole_prompt: bool = False
    """Sliding layers hold the whole prompt until the second token: what the cache keeps of it is a view of all of it
    (`DynamicSlidingWindowLayer.update`)."""
    expands_kv: bool = False
    """Grouped key-value heads are cached once per query head."""
    holds_attention_weights: bool = False
    """A layer's eager attention weights live on in a variable (transformers 5), though nobody asked for them."""
    splits_vocabulary: bool = True
    """Tensor parallelism splits the embeddings and the output projection as well."""
    unties_head: bool = False
    """A tied output projection is loaded as a matrix of its own."""
    frees_out_of_window: bool = False
    """A cache that is allocated for the whole length has room for the window alone in layers that slide (vLLM's
    hybrid KV cache manager, docs.vllm.ai/en/latest/design/hybrid_kv_cache_manager)."""
    has_every_attention: bool = False
    """Fused attention for every model type; transformers runs some eagerly whatever is asked."""
    turns_linear_modules_only: bool = False
    """bitsandbytes turns what is an `nn.Linear` and nothing else: stacked experts and Falcon's own class stay
    (`replace_with_bnb_linear` asks `type(module) is nn.Linear`)."""
    fuses_qkv: bool = False
    """Query, key and value matrices are concatenated after loading: they stand twice at the end of loading."""


ENGINES: dict[str, Engine] = {
    e.name: e
    for e in (
        Engine(
            "transformers",
            "transformers >= 4.45, generate()",
            cache="grow",
            holds_attention_weights=True,
            turns_linear_modules_only=True,
            keeps_whole_prompt=True,
            source="transformers 5.23.0: cache_utils.DynamicLayer, `logits_to_keep`, bitsandbytes integration",
        ),
        Engine(
            "transformers-4.3x",
            "transformers 4.31-4.44, generate()",
            cache="grow-copy",
            all_logits=True,
            rotary_tables=True,
            source="transformers 4.38: modeling_llama (tuple cache, `logits.float()`, `_set_cos_sin_cache` per layer)",
        ),
        Engine(
            "litgpt",
            "LitGPT generate",
            cache="static",
            all_logits=True,
            quantizes_head=True,
            dequantize_copies=2,
            expands_kv=True,
            splits_vocabulary=False,
            unties_head=True,
            source="Lightning-AI/litgpt@2685705 litgpt/model.py, lightning bitsandbytes plugin",
        ),
        Engine(
            "autoawq",
            "AutoAWQ, fused layers",
            cache="static",
            all_logits=True,
            unties_head=True,
            fuses_qkv=True,
            source="casper-hansen/AutoAWQ@88e4c76 awq/models (fuse_transformer), examples/benchmark.py",
        ),
        Engine(
            "vllm",
            "vLLM, paged cache",
            cache="static",
            frees_out_of_window=True,
            has_every_attention=True,
            source="vllm-project/vllm worker profile_run: weights + peak of a dummy maximal batch + non-torch",
        ),
    )
}


def engine(name: str) -> Engine:
    """The engine called `name`; raises `UserError` for an unknown one."""
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    return ENGINES[name]
