"""How a layer is run: widths, what is trained, adapters, kernels. A plain value, so that layers can be cached by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kernel = Literal["eager", "sdpa", "flash"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Widths are bytes per element.

    `weights`: of linear weights as stored (fractional when quantized), `kept`: of norms, embeddings and the head,
    `autocast`: of the type torch.autocast casts to, 0 without it.
    """

    weights: float = 2.0
    kept: int = 2
    autocast: int = 0
    stream: int = 2
    """Of the hidden states as the embedding gives them."""
    compute: int = 2
    """Of the products of a quantized weight."""
    full: bool = True
    """Base weights are trained."""
    norms_trained: bool = True
    quantized: Literal["", "4bit", "int8", "gptq"] = ""
    kernel: Kernel = "sdpa"
    cuda: bool = True
    """Kernels of a GPU: one-byte dropout masks, dropout inside the attention kernel. False: torch on a CPU."""
    targets: tuple[str, ...] = ()
    """Last names of the linear modules with an adapter."""
    rank: int = 0
    adapter: int = 4
    """Width of adapter weights."""
    adapter_dropout: float = 0.0
    adapter_a_trained: bool = True
    scattered_adapter: float = 0.0
    """litgpt adapts a part of a fused projection (this share of its rows) and scatters the result into place, which
    autograd keeps (`index_copy`)."""
    keeps_4bit_input: bool = False
    """bitsandbytes before 0.43 kept the input of every 4-bit product."""
    padded: bool = False
    """Sequences are padded, so attention gets a mask for each."""
    compiled: bool = False
    """torch.compile's partitioner recomputes pointwise operations in the backward pass."""
    shard: int = 1
    """Tensor-parallel degree: heads and MLP width are divided by it."""

    def adapts(self, name: str) -> bool:
        """PEFT's matching: the module's name is a target or ends in one after a dot."""
        return any(name == t or name.endswith("." + t) for t in self.targets)
