"""Mixtral, Qwen-MoE: LLaMA's attention over an MLP that is a choice of experts (arXiv:2401.04088, arXiv:2505.09388)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sizing.errors import UserError
from sizing.models.facts import Tensor
from sizing.models.families import llama
from sizing.models.families.layout import Config, Layout, Tensors, check_experts, positive_int


def expert_layers(config: Config, layers: int) -> int:
    """How many of `layers` hold experts (Qwen's `mlp_only_layers` and `decoder_sparse_step`)."""
    step = positive_int(config, "decoder_sparse_step", default=1)
    dense = config.get("mlp_only_layers") or []
    if not isinstance(dense, Sequence) or isinstance(dense, str):
        raise UserError("config.json: 'mlp_only_layers' must be a list of layer numbers")
    return sum(1 for i in range(layers) if i not in dense and (i + 1) % step == 0)


def layout(config: Config) -> Layout:
    """`mixtral`, `qwen2_moe`, `qwen3_moe`. Experts stand one by one, as published; transformers 5 stacks them."""
    model_type = config.get("model_type")
    mixtral = model_type == "mixtral"
    dense = llama.layout(config)
    stack = dense.decoder
    if stack is None:
        raise UserError("config.json describes no decoder")
    hidden, layers = stack.hidden_size, stack.layers
    experts = positive_int(config, "num_local_experts" if mixtral else "num_experts", default=8 if mixtral else None)
    chosen = positive_int(config, "num_experts_per_tok", default=2 if mixtral else None)
    check_experts(chosen, experts)
    width = positive_int(config, "intermediate_size" if mixtral else "moe_intermediate_size")
    sparse = layers if mixtral else expert_layers(config, layers)

    t = Tensors()
    block = "model.layers.block_sparse_moe" if mixtral else "model.layers.mlp"
    names = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    t.mixture(block, "gate", experts, width, hidden, sparse, names=names)
    shared = positive_int(config, "shared_expert_intermediate_size") if model_type == "qwen2_moe" else 0
    if shared:
        t.gated_mlp(f"{block}.shared_expert", shared, hidden, sparse)
        t.linear(f"{block}.shared_expert_gate", 1, hidden, sparse)

    def placed(tensor: Tensor) -> Tensor | None:
        if ".mlp." not in tensor.name:
            return tensor
        return replace(tensor, count=layers - sparse) if layers > sparse else None

    kept = tuple(p for p in map(placed, dense.tensors) if p is not None)
    return replace(
        dense,
        tensors=kept + t.done(),
        decoder=replace(
            stack,
            intermediate_size=chosen * width + shared,
            experts=experts,
            experts_per_token=chosen,
            expert_size=width,
        ),
    )
