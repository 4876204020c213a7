"""What a model is: its parameters tensor by tensor, its shape, its context window, its licence."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Architecture = Literal["encoder-only", "decoder-only", "encoder-decoder"]
Part = Literal["encoder", "decoder", "shared", "head"]
"""Where a tensor sits. `shared`: embeddings used by both stacks. `head`: output projection, pooler, classifier."""
Kind = Literal["linear", "embedding", "position", "norm", "bias", "other"]
"""`linear` tensors are those a quantizer may turn; `embedding` are token embeddings; the output projection is
`linear` with part `head`."""
Shard = Literal["column", "row", "vocab", "none"]
"""How tensor parallelism splits it (Megatron-LM, arXiv:1909.08053): by output, by input, by vocabulary, or copied."""
LicenceVerdict = Literal["business-friendly", "conditions", "non-commercial", "closed"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A group of `count` equal tensors of `shape` (torch's order: out_features, in_features)."""

    name: str
    """The module path without the layer index: `decoder.block.layer.EncDecAttention.q.weight`."""
    shape: tuple[int, ...]
    count: int = 1
    part: Part = "decoder"
    kind: Kind = "linear"
    shard: Shard = "none"
    layered: bool = True
    """One (or more) in every layer of its stack, against once in the model."""
    expert: bool = False
    """One of a mixture's experts: a token passes only some of them."""
    keep_fp32: bool = False
    """transformers keeps it in fp32 when the model is loaded in fp16 or quantized (T5's `wo`)."""
    bare: bool = False
    """transformers 5 holds it outside an `nn.Linear`: a mixture's experts stacked in one parameter, Falcon's own class.
    bitsandbytes turns nothing else than an `nn.Linear`."""
    tied_to: str = ""
    """Name of the tensor whose storage it shares; a tied tensor adds no parameters."""

    @property
    def numel(self) -> int:
        """Elements of the whole group; 0 for a tied one."""
        return 0 if self.tied_to else self.count * math.prod(self.shape)

    @property
    def rows(self) -> int:
        """Output rows of the whole group."""
        return 0 if self.tied_to else self.count * self.shape[0]


@dataclass(frozen=True, slots=True)
class AttentionLayers:
    """`layers` of a stack that attend alike. `window` in tokens, None for the whole context.

    `key_dim`, `value_dim`: elements cached per kv head and token. Multi-head latent attention is one kv head with the
    latent and rope sizes as `key_dim` and 0 as `value_dim`; linear-attention layers cache nothing: kv_heads = 0.
    """

    layers: int
    kv_heads: int
    key_dim: int
    value_dim: int
    window: int | None = None
    state: int = 0
    """Elements kept for each sequence whatever its length: what a state-space layer has in place of a cache."""


@dataclass(frozen=True, slots=True)
class Latent:
    """Sizes of multi-head latent attention (arXiv:2405.04434): the latent that is cached, a head's rotary part and
    value, and the rank of the query's own latent (0: none)."""

    rank: int
    rope: int
    value: int
    query_rank: int = 0


@dataclass(frozen=True, slots=True)
class Stack:
    """A tower of layers. `intermediate_size` is the MLP width that one token passes (active experts together)."""

    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    gated: bool
    attention: tuple[AttentionLayers, ...]
    cross_attention: bool = False
    latent: Latent | None = None
    experts: int = 0
    experts_per_token: int = 0
    expert_size: int = 0
    """MLP width of one routed expert; what `intermediate_size` has beyond the chosen ones is shared by all tokens."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    position: Literal["learned", "sinusoidal", "rotary", "alibi", "relative", "none"] = "learned"
    activation: str = "gelu"
    qk_norm: bool = False
    parallel_residual: bool = False
    """Attention and MLP side by side on the same input (GPT-J, GPT-NeoX, Falcon, Phi)."""
    dropout: float = 0.0
    """Probability in training (hidden, the model's own configuration)."""
    attention_dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model: what the catalogue, a folder or the hub says of it.

    `params` are the elements of the published checkpoint (tied tensors once); `class_params` are those that
    transformers' class builds from the same config where they differ, with `params_note` saying why.
    """

    name: str
    family: str
    model_type: str
    architecture: Architecture
    params: int
    tensors: tuple[Tensor, ...]
    vocab_size: int
    context_window: int | None
    """Tokens; None where positions are relative and nothing limits them but memory (the trained length is in notes)."""
    published_dtype: str
    tied_embeddings: bool
    encoder: Stack | None = None
    decoder: Stack | None = None
    class_params: int | None = None
    params_note: str = ""
    licence: str = "unknown"
    licence_verdict: LicenceVerdict | Literal["unknown"] = "unknown"
    licence_reason: str = ""
    tasks: tuple[str, ...] = ()
    languages: str = ""
    stored_bytes: int | None = None
    """Bytes of the tensors as stored (safetensors header), where known."""
    source: str = ""
    as_of: str = ""
    notes: tuple[str, ...] = field(default=())
    deployable: bool = True

    @property
    def stacks(self) -> tuple[Stack, ...]:
        return tuple(s for s in (self.encoder, self.decoder) if s is not None)

    @property
    def main(self) -> Stack:
        """The decoder where there is one, else the encoder."""
        stack = self.decoder or self.encoder
        if stack is None:
            raise ValueError(f"{self.name} has no layers")
        return stack

    @property
    def hidden_size(self) -> int:
        return self.main.hidden_size

    @property
    def generates(self) -> bool:
        return self.decoder is not None

    @property
    def active_params(self) -> int:
        """Parameters that one token passes: all of a dense model, the chosen experts of a mixture."""
        experts = sum(t.numel for t in self.tensors if t.expert)
        if not experts:
            return self.params
        main = self.main
        return self.params - experts + experts * main.experts_per_token // main.experts

    def numel(self, where: Callable[[Tensor], bool]) -> int:
        """Elements of the tensors for which `where` holds."""
        return sum(t.numel for t in self.tensors if where(t))
