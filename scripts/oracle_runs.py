"""Two oracles that allocate nothing: what a training step of a transformers model keeps, and what it needs at its peak.

- `saved`: tensors that autograd saves in the forward pass, counted by `saved_tensors_hooks` as distinct storages that
  are not weights. On the meta device, or with fake CUDA tensors where autocast matters.
- `peak`: torch's `MemTracker` under `FakeTensorMode` with CPU tensors: two steps of AdamW, the peak by category.

`kernels="cuda"` makes the CPU and meta devices do what CUDA does where they differ: dropout keeps a one-byte mask
(`native_dropout`), and scaled_dot_product_attention runs the flash kernel (the memory-efficient one with a mask).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """A step to play. `model`: a catalogue name, `layers`: 0 for all, else that many of each stack."""

    model: str
    layers: int = 0
    method: str = "full"
    precision: str = "pure-bf16"
    attention: str = "eager"
    kernels: str = "cpu"
    batch: int = 2
    input_tokens: int = 128
    output_tokens: int = 0
    checkpointing: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """Bytes. `saved` for the first oracle; the rest by MemTracker's categories at the peak."""

    saved: int = 0
    after_forward: int = 0
    """MemTracker's activations when the forward pass has ended: what `saved` counts another way."""
    parameters: int = 0
    gradients: int = 0
    activations: int = 0
    temporary: int = 0
    optimizer: int = 0
    total: int = 0
    seconds: float = 0.0


_LAYER_KEYS = (
    "num_hidden_layers", "num_layers", "num_decoder_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers",
)  # fmt: skip


def config_of(case: Case) -> dict[str, Any]:
    """The model's `config.json` as the case wants it: with as many layers, and T5 tied as transformers 5 ties it."""
    from sizing.models.catalogue import load_catalogue

    config = dict(load_catalogue().configs[case.model])
    if case.layers:
        for key in _LAYER_KEYS:
            if key in config:
                config[key] = case.layers
        if isinstance(config.get("layer_types"), list):
            config["layer_types"] = config["layer_types"][: case.layers]
    if config["model_type"] in ("t5", "mt5", "umt5"):
        config["tie_word_embeddings"] = True
    return config


def _dtype(case: Case) -> Any:
    import torch

    if case.precision == "fp32" or (case.precision == "bf16" and case.method == "full"):
        return torch.float32
    return torch.bfloat16


def build(case: Case) -> tuple[Any, dict[str, Any]]:
    """(model, batch) on the meta device: shapes and types, no memory behind them."""
    import torch
    import torch.fx.experimental._config
    import transformers
    from transformers import masking_utils

    # Both look into the mask's values, which a tensor without memory has not: every token is taken as real.
    masking_utils._ignore_bidirectional_mask_sdpa = lambda *_, **__: case.attention != "eager"
    masking_utils._ignore_causal_mask_sdpa = lambda *_, **__: case.attention != "eager"
    # DeBERTa's embeddings ask which tokens are not padding.
    torch.fx.experimental._config.meta_nonzero_assume_all_nonzero = True  # type: ignore[attr-defined]
    config = {**config_of(case), "use_cache": False}
    kind = config.pop("model_type")
    config.pop("architectures", None)
    made = transformers.AutoConfig.for_model(kind, **config)
    architecture = "causal"
    if getattr(made, "is_encoder_decoder", False):
        architecture = "seq2seq"
        made.decoder_start_token_id, made.pad_token_id = 0, 0
    elif kind in ("bert", "roberta", "distilbert", "deberta-v2"):
        architecture = "classification"
    builder = {
        "causal": transformers.AutoModelForCausalLM,
        "seq2seq": transformers.AutoModelForSeq2SeqLM,
        "classification": transformers.AutoModelForSequenceClassification,
    }[architecture]
    with torch.device("meta"):
        model = builder.from_config(made, attn_implementation=case.attention, dtype=_dtype(case))
    model.train()
    if case.method == "lora":
        from peft import LoraConfig, get_peft_model

        from sizing.memory.training.setup import TrainingSetup
        from sizing.memory.training.trained import lora_targets
        from sizing.models.read import facts_from_config

        if case.checkpointing:
            model.enable_input_require_grads()
        targets = lora_targets(facts_from_config(config_of(case), name=case.model), TrainingSetup(method="lora"))
        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=list(targets)))
    if case.checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    ids = torch.zeros(case.batch, case.input_tokens, dtype=torch.long, device="meta")
    batch: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if architecture == "classification":
        batch["labels"] = torch.zeros(case.batch, dtype=torch.long, device="meta")
    elif architecture == "seq2seq":
        batch["labels"] = torch.zeros(case.batch, case.output_tokens, dtype=torch.long, device="meta")
    else:
        batch["labels"] = ids
    return model, batch


def moved(model: Any, batch: dict[str, Any], device: str) -> dict[str, Any]:
    """Gives `model` fake tensors on `device` (under `FakeTensorMode`) in place of its meta ones, and returns `batch`
    there. Tied weights stay tied."""
    import torch

    made: dict[int, Any] = {}

    def fake(tensor: Any) -> Any:
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
            if isinstance(tensor, torch.nn.Parameter):
                empty = torch.nn.Parameter(empty, requires_grad=tensor.requires_grad)
            made[id(tensor)] = (tensor, empty)
        return made[id(tensor)][1]

    for module in model.modules():
        for name, tensor in list(module._parameters.items()):
            if tensor is not None:
                module._parameters[name] = fake(tensor)
        for name, tensor in list(module._buffers.items()):
            if tensor is not None:
                module._buffers[name] = fake(tensor)
    return {name: torch.zeros(t.shape, dtype=t.dtype, device=device) for name, t in batch.items()}


def saved(case: Case) -> Result:
    """Bytes that autograd keeps of the forward pass: distinct storages that are neither weights nor buffers."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    started = time.perf_counter()
    autocast = case.precision == "bf16"
    with contextlib.ExitStack() as stack:
        if case.kernels == "cuda":
            stack.enter_context(_cuda_kernels())
        model, batch = build(case)
        if autocast:
            # Autocast has no meta device. CUDA tensors can be faked without a GPU as long as nothing runs backward.
            stack.enter_context(_pretended_cuda())
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            batch = moved(model, batch, "cuda")
        elif config_of(case)["model_type"] == "xlnet":
            # Its positions are made on the CPU, which meta tensors do not meet.
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            batch = moved(model, batch, "cpu")
        known = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
        found: dict[int, Any] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in known:
                found[storage._cdata] = storage  # the reference keeps the address from being used again
            return tensor

        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor))
        if autocast:
            stack.enter_context(torch.autocast("cuda", dtype=torch.bfloat16))
        output = model(**batch)
        total = sum(storage.nbytes() for storage in found.values())
        del output
    return Result(saved=total, seconds=time.perf_counter() - started)


def peak(case: Case, *, fake: bool = True) -> Result:
    """The peak of the second of two steps of AdamW (one tensor at a time, as on a CPU), by MemTracker's categories."""
    import warnings

    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker

    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if case.kernels == "cuda":
            stack.enter_context(_cuda_kernels())
        model, batch = build(case)
        if fake:
            stack.enter_context(FakeTensorMode())
            batch = moved(model, batch, "cpu")
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, foreach=False)
        tracker = MemTracker()
        tracker.track_external(model, optimizer)
        stack.enter_context(_frozen_weights_unhooked())
        with tracker:
            for _ in range(2):
                tracker.reset_mod_stats()
                loss = model(**batch).loss
                after = max(tracker.get_tracker_snapshot("current").values(), key=lambda s: s["Total"])
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        snapshots = tracker.get_tracker_snapshot("peak")
    at_peak = max(snapshots.values(), key=lambda s: s["Total"])
    by_name = {_category(key): size for key, size in at_peak.items()}
    forward = {_category(key): size for key, size in after.items()}
    return Result(
        after_forward=forward["ACT"],
        parameters=by_name["PARAM"] + by_name["BUFFER"],
        gradients=by_name["GRAD"],
        activations=by_name["ACT"],
        temporary=by_name["TEMP"] + by_name["OTH"],
        optimizer=by_name["OPT"],
        total=by_name["Total"],
        seconds=time.perf_counter() - started,
    )


@contextlib.contextmanager
def _frozen_weights_unhooked() -> Iterator[None]:
    """MemTracker puts a gradient hook on every weight, which torch refuses for those that get no gradient."""
    import torch

    names = ("register_hook", "register_post_accumulate_grad_hook")
    before = {name: getattr(torch.Tensor, name) for name in names}

    def unless_frozen(register: Any) -> Any:
        return lambda tensor, hook: register(tensor, hook) if tensor.requires_grad else _NoHandle()

    for name in names:
        setattr(torch.Tensor, name, unless_frozen(before[name]))
    try:
        yield
    finally:
        for name in names:
            setattr(torch.Tensor, name, before[name])


def _category(key: object) -> str:
    return str(key).rsplit(".", 1)[-1]


class _NoHandle:
    def remove(self) -> None:
        """Nothing was registered."""


@contextlib.contextmanager
def _pretended_cuda() -> Iterator[None]:
    """torch.autocast("cuda") on a machine without a GPU."""
    import torch

    common = torch.cuda.amp.common
    cuda = torch.cuda
    before = common.amp_definitely_not_available, cuda.is_bf16_supported, cuda.get_device_capability
    common.amp_definitely_not_available = lambda: False
    cuda.is_bf16_supported = lambda *_, **__: True
    cuda.get_device_capability = lambda *_, **__: (9, 0)
    try:
        yield
    finally:
        common.amp_definitely_not_available, cuda.is_bf16_supported, cuda.get_device_capability = before


@contextlib.contextmanager
def _cuda_kernels() -> Iterator[None]:
    """Dropout and scaled_dot_product_attention as CUDA runs them."""
    import torch
    from torch.nn import functional

    def dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:  # noqa: ARG001
        return torch.native_dropout(x, p, training)[0] if training and p > 0 else x

    def attention(
        q: Any,
        k: Any,
        v: Any,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: Any = None,
        enable_gqa: bool = False,  # noqa: ARG001
    ) -> Any:
        if torch.is_autocast_enabled("cuda"):
            q, k, v = (t.to(torch.bfloat16) for t in (q, k, v))
        ops = torch.ops.aten
        if attn_mask is None:
            return ops._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, scale=scale)[0]
        bias = attn_mask.to(q.dtype).expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
        return ops._scaled_dot_product_efficient_attention(q, k, v, bias, True, dropout_p, is_causal, scale=scale)[0]

    before = functional.dropout, functional.scaled_dot_product_attention
    functional.dropout, functional.scaled_dot_product_attention = dropout, attention
    try:
        yield
    finally:
        functional.dropout, functional.scaled_dot_product_attention = before
