"""What is asked of a memory estimate in fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sizing.errors import UserError

Method = Literal["full", "lora", "qlora", "prompt"]
Precision = Literal["bf16", "fp16", "fp32", "pure-bf16"]
"""bf16 and fp16 are mixed: fp32 master weights and optimizer states beside 16-bit weights."""
Optimizer = Literal["adamw", "adamw8bit", "adafactor", "sgd", "lion"]
Offload = Literal["none", "optimizer", "all"]
TrainAttention = Literal["eager", "sdpa", "flash"]


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """A fine-tuning run. `micro_batch` is per GPU; `gpus` counts all GPUs of all nodes; data-parallel over
    `gpus / tensor_parallel`. `output_tokens` is the target length of an encoder-decoder (0 for a decoder-only model)."""

    method: Method = "full"
    precision: Precision = "bf16"
    optimizer: Optimizer = "adamw"
    micro_batch: int = 1
    input_tokens: int = 512
    output_tokens: int = 0
    gpus: int = 1
    gpus_per_node: int = 8
    zero_stage: int = 0
    offload: Offload = "none"
    checkpointing: bool = False
    attention: TrainAttention = "sdpa"
    tensor_parallel: int = 1
    lora_rank: int = 16
    lora_targets: tuple[str, ...] = ()
    """Last names of the adapted linear layers; empty: PEFT's defaults for the model type."""
    prompt_tokens: int = 20
    base_dtype: str = ""
    """Storage of frozen weights under lora/qlora; empty: bf16 for lora, nf4-dq for qlora."""
    gpu: str = ""

    def __post_init__(self) -> None:
        for name in ("micro_batch", "input_tokens", "gpus", "gpus_per_node", "tensor_parallel", "lora_rank"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name.replace('_', '-')} is {value}; it must be a whole number of at least 1")
        if self.output_tokens < 0:
            raise UserError(f"output-tokens is {self.output_tokens}; it must not be negative")
        if self.zero_stage not in (0, 1, 2, 3):
            raise UserError(f"zero is {self.zero_stage}; DeepSpeed has stages 0, 1, 2 and 3")
        if self.offload != "none" and self.zero_stage == 0:
            raise UserError(f"offload {self.offload} needs ZeRO stage 1, 2 or 3 (--zero)")
        if self.offload == "all" and self.zero_stage != 3:
            raise UserError(f"offload all moves parameters as well, which needs --zero 3, not {self.zero_stage}")
        if self.gpus % self.tensor_parallel:
            raise UserError(f"{self.gpus} GPUs cannot be split into groups of {self.tensor_parallel} (--tensor-parallel)")

    @property
    def data_parallel(self) -> int:
        return self.gpus // self.tensor_parallel
