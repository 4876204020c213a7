"""What is asked of a memory estimate at inference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sizing.dtypes import DTYPES
from sizing.errors import UserError
from sizing.models.facts import ModelFacts

Attention = Literal["eager", "sdpa", "flash"]


@dataclass(frozen=True, slots=True)
class InferenceSetup:
    """A serving situation. Token counts are per sequence; `tensor_parallel` devices share the model."""

    dtype: str = "bf16"
    batch: int = 1
    input_tokens: int = 512
    output_tokens: int = 128
    tensor_parallel: int = 1
    engine: str = "transformers"
    """Whose allocations are predicted: a key of `sizing.memory.engines.ENGINES`."""
    attention: Attention = "sdpa"
    loading: str = "plain"
    kv_dtype: str = ""
    """Empty: the compute dtype."""
    gpu: str = ""
    """GPU name where known (its CUDA context); empty: a typical one."""

    def __post_init__(self) -> None:
        for name in ("batch", "input_tokens", "tensor_parallel"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name.replace('_', '-')} is {value}; it must be a whole number of at least 1")
        if self.output_tokens < 0:
            raise UserError(f"output-tokens is {self.output_tokens}; it must not be negative")
        for name, limit in (("batch", 100_000), ("input_tokens", 100_000_000), ("output_tokens", 100_000_000)):
            if getattr(self, name) > limit:
                raise UserError(
                    f"{name.replace('_', '-')} is {getattr(self, name):,}; no machine serves above {limit:,}"
                )
        if self.tensor_parallel > 1024:
            raise UserError(f"tensor-parallel is {self.tensor_parallel}; at most 1024")

    def with_batch(self, batch: int) -> InferenceSetup:
        return replace(self, batch=batch)


def published_dtype(model: ModelFacts) -> str:
    """The dtype that `model` was published in, quantized ones too, in Berth's name; bf16 where it is not known."""
    return model.published_dtype if model.published_dtype in DTYPES else "bf16"
