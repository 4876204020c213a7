"""Bytes of the key-value cache: what a generating model keeps of every token it has seen."""

from __future__ import annotations

from dataclasses import dataclass

from sizing.memory.engines import Engine
from sizing.models.facts import AttentionLayers, ModelFacts


@dataclass(frozen=True, slots=True)
class CacheSize:
    """Bytes on one device. `largest_layer`: keys and values of the largest layer, for what concatenation doubles."""

    self_attention: float
    cross_attention: float
    largest_layer: float
    formula: str
    cross_formula: str

    @property
    def total(self) -> float:
        return self.self_attention + self.cross_attention


def _layer_elements(layers: AttentionLayers, heads: int, tensor_parallel: int, expand: bool) -> float:
    """Elements that one token leaves in one layer on one device; each device holds at least one key-value head."""
    if layers.kv_heads == 0:
        return 0.0
    kv_heads = heads if expand and layers.kv_heads > 1 else layers.kv_heads
    per_device = max(1.0, kv_heads / tensor_parallel)
    return per_device * (layers.key_dim + layers.value_dim)


def cache_size(
    model: ModelFacts,
    engine: Engine,
    *,
    batch: int,
    tokens: int,
    encoder_tokens: int = 0,
    element_bytes: float,
    tensor_parallel: int = 1,
    whole_prompt: bool = False,
) -> CacheSize:
    """The cache of `batch` sequences that have seen `tokens` each (and `encoder_tokens` on the encoder's side).

    Self-attention: 2·b·s·L·kv_heads·head_dim·bytes, s capped by the window in layers that have one; not in the pass
    over a prompt (`whole_prompt`) by engines that drop what is out of the window later. Cross-attention keeps keys and
    values of the encoder's output in every decoder layer. Checked against vLLM's figure for Mistral-24B (163,840 bytes
    a token).
    """
    stack = model.decoder
    if stack is None:
        return CacheSize(0.0, 0.0, 0.0, "no decoder: nothing is cached", "")
    total = largest = 0.0
    parts = []
    for layers in stack.attention:
        drops = engine.cache != "static" or engine.frees_out_of_window
        windowed = layers.window and drops and not (whole_prompt and engine.keeps_whole_prompt)
        seen = min(tokens, layers.window or tokens) if windowed else tokens
        elements = _layer_elements(layers, stack.heads, tensor_parallel, engine.expands_kv)
        layer = batch * (seen * elements + layers.state / tensor_parallel) * element_bytes
        total += layer * layers.layers
        largest = max(largest, layer)
        if layers.state:
            parts.append(f"{layers.layers} layers × {batch} × a state of {layers.state:,} × {element_bytes:g} bytes")
            continue
        parts.append(f"{layers.layers} layers × {batch} × {seen:,} tokens × {elements:g} × {element_bytes:g} bytes")
    cross = 0.0
    cross_formula = ""
    if stack.cross_attention:
        heads = max(1.0, stack.kv_heads / tensor_parallel)
        layer = batch * encoder_tokens * heads * 2 * stack.head_dim * element_bytes
        cross = layer * stack.layers
        cross_formula = (
            f"{stack.layers} layers × {batch} × {encoder_tokens:,} input tokens × "
            f"{heads * 2 * stack.head_dim:g} × {element_bytes:g} bytes"
        )
    return CacheSize(total, cross, largest, " + ".join(parts), cross_formula)
