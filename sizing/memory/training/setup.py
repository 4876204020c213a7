"""What is asked of a memory estimate in fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from sizing.errors import UserError

Method = Literal["full", "lora", "qlora", "prompt"]
Precision = Literal["bf16", "fp16", "fp32", "pure-bf16"]
"""bf16 and fp16 are mixed: fp32 master weights and optimizer states beside 16-bit weights."""
Optimizer = Literal["adamw", "adamw8bit", "adafactor", "sgd", "lion"]
Offload = Literal["none", "optimizer", "all"]
TrainAttention = Literal["eager", "sdpa", "flash"]
Sharding = Literal["zero", "fsdp"]
Framework = Literal["transformers", "transformers-2023", "litgpt", "torchtune"]
"""Whose layers run: transformers 5, transformers as it was in 2023 (4.26 to 4.36), litgpt, torchtune."""
Kernel = Literal["fused", "foreach", "loop"]
Buckets = Literal["auto", "default"]
Loss = Literal["plain", "chunked", "fused"]
Backend = Literal["cuda", "cpu"]

_LIMITS = {
    "micro_batch": 100_000,
    "input_tokens": 100_000_000,
    "gpus": 100_000,
    "gpus_per_node": 1024,
    "tensor_parallel": 1024,
    "lora_rank": 65_536,
    "gradient_accumulation_steps": 1_000_000,
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "method": get_args(Method),
    "precision": get_args(Precision),
    "optimizer": get_args(Optimizer),
    "offload": get_args(Offload),
    "attention": get_args(TrainAttention),
    "sharding": get_args(Sharding),
    "framework": get_args(Framework),
    "optimizer_kernel": get_args(Kernel),
    "buckets": get_args(Buckets),
    "loss": get_args(Loss),
    "backend": get_args(Backend),
}


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """A fine-tuning run. `micro_batch` is per GPU; `gpus` counts all GPUs of all nodes; data-parallel over
    `gpus / tensor_parallel`. `output_tokens` is an encoder-decoder's target length (0 for a decoder-only model)."""

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
    gradient_accumulation_steps: int = 1
    sharding: Sharding = "zero"
    """fsdp: PyTorch's FSDP; `zero_stage` 3 is FULL_SHARD, 2 SHARD_GRAD_OP."""
    framework: Framework = "transformers"
    optimizer_kernel: Kernel = "fused"
    """torch's AdamW: fused (the Trainer's default) needs no room of its own, foreach as much as one more state, loop
    that of one tensor."""
    buckets: Buckets = "auto"
    """DeepSpeed's bucket sizes: those that transformers and accelerate derive from hidden_size, or DeepSpeed's own."""
    reduce_bucket: int = 0
    """DeepSpeed's `reduce_bucket_size` in elements where it is set by hand; 0: by `buckets`."""
    loss: Loss = "plain"
    """chunked: logits piece by piece (litgpt, torchtune); fused: never whole (Liger)."""
    compiled: bool = False
    lora_dropout: float = 0.0
    lora_a_frozen: bool = False
    """LoRA-FA: only B is trained."""
    adapter_dtype: str = ""
    """fp32 or bf16; empty: fp32 unless DeepSpeed holds the model."""
    train_norms: bool = False
    train_embeddings: bool = False
    """Embeddings and output projection are trained in full beside the adapters (PEFT's `modules_to_save`)."""
    kept_dtype: str = ""
    """Under qlora, of norms, embeddings and head: fp32 (`prepare_model_for_kbit_training`, the default) or bf16."""
    keeps_logits: bool = False
    """The loop holds the model's outputs through the backward pass (`outputs = model(...)`); the Trainer does not."""
    padded: bool = False
    """Sequences of a batch are padded to one length, so that sdpa works with a mask: key and value heads are repeated
    and a position bias is kept for every sequence."""
    offload_activations: bool = False
    """Checkpointed layer inputs wait in host memory."""
    optimizer_in_backward: bool = False
    """Each weight is updated as soon as its gradient is there, which is then freed."""
    paged_optimizer: bool = False
    empty_cache_steps: int = 0
    """The loop empties torch's cache every so many steps, which leaves little slack; 0: never."""
    loading: str = "mmap"
    """How each process reads the model (`sizing.memory.loading`)."""
    zero_init: bool = True
    """ZeRO-3 only: the model is built under `deepspeed.zero.Init` (the Trainer's way), so that a rank keeps its share
    alone. False: every rank loads the whole model first."""
    pinned: bool = True
    """Offloaded states stand in page-locked memory."""
    backend: Backend = "cuda"
    """cpu: torch's CPU kernels, as the oracles run them."""

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"{name.replace('_', '-')} is {value}; it must be a whole number of at least 1")
            if value > limit:
                raise UserError(f"{name.replace('_', '-')} is {value:,}; at most {limit:,}")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"{name.replace('_', '-')} is '{getattr(self, name)}'; allowed: {', '.join(allowed)}")
        if not 0 <= self.prompt_tokens <= _LIMITS["input_tokens"]:
            raise UserError(f"prompt-tokens is {self.prompt_tokens}; it must not be negative")
        if not 0.0 <= self.lora_dropout < 1.0:
            raise UserError(f"lora-dropout is {self.lora_dropout}; it must be a probability below 1")
        if self.output_tokens < 0:
            raise UserError(f"output-tokens is {self.output_tokens}; it must not be negative")
        if self.zero_stage not in (0, 1, 2, 3):
            raise UserError(f"zero is {self.zero_stage}; DeepSpeed has stages 0, 1, 2 and 3")
        if self.offload != "none" and self.zero_stage == 0:
            raise UserError(f"offload {self.offload} needs ZeRO stage 1, 2 or 3 (--zero)")
        if self.offload == "all" and self.zero_stage != 3:
            raise UserError(f"offload all moves parameters as well, which needs --zero 3, not {self.zero_stage}")
        if self.gpus % self.tensor_parallel:
            raise UserError(
                f"{self.gpus} GPUs cannot be split into groups of {self.tensor_parallel} (--tensor-parallel)"
            )

    @property
    def data_parallel(self) -> int:
        return self.gpus // self.tensor_parallel
