"""Which weights are trained, and which are added: LoRA adapters (arXiv:2106.09685), soft prompts (arXiv:2104.08691)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sizing.errors import UserError
from sizing.memory.training.setup import TrainingSetup
from sizing.models.facts import ModelFacts, Tensor

LORA_TARGETS: dict[str, tuple[str, ...]] = {
    "t5": ("q", "v"),
    "mt5": ("q", "v"),
    "umt5": ("q", "v"),
    "bart": ("q_proj", "v_proj"),
    "mbart": ("q_proj", "v_proj"),
    "pegasus": ("q_proj", "v_proj"),
    "gpt2": ("c_attn",),
    "gpt_bigcode": ("c_attn",),
    "bloom": ("query_key_value",),
    "opt": ("q_proj", "v_proj"),
    "gptj": ("q_proj", "v_proj"),
    "gpt_neox": ("query_key_value",),
    "gpt_neo": ("q_proj", "v_proj"),
    "bert": ("query", "value"),
    "roberta": ("query", "value"),
    "xlm-roberta": ("query", "value"),
    "deberta-v2": ("query_proj", "value_proj"),
    "deberta": ("in_proj",),
    "llama": ("q_proj", "v_proj"),
    "mistral": ("q_proj", "v_proj"),
    "mixtral": ("q_proj", "v_proj"),
    "mpt": ("Wqkv",),
    "falcon": ("query_key_value",),
    "phi": ("q_proj", "v_proj", "fc1", "fc2"),
    "gemma": ("q_proj", "v_proj"),
    "gemma2": ("q_proj", "v_proj"),
    "gemma3_text": ("q_proj", "v_proj"),
    "qwen2": ("q_proj", "v_proj"),
    "qwen3": ("q_proj", "v_proj"),
}
"""PEFT's defaults (`TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING`, peft 0.21.2, peft/utils/constants.py)."""

_SIMILAR = (("q_proj", "v_proj"), ("query_key_value",), ("c_attn",), ("q_lin", "v_lin"), ("query", "value"), ("q", "v"))
"""For a type PEFT has no default for: query and value, by the names they go by."""


_MLP = ("gate_proj", "up_proj", "down_proj", "gate_up_proj", "w1", "w2", "w3", "input_linear", "output_linear")


@dataclass(frozen=True, slots=True)
class Adapter:
    """LoRA matrices of `count` equal linear layers: A [rank, in_features], B [out_features, rank]."""

    name: str
    in_features: int
    out_features: int
    rank: int
    count: int

    @property
    def numel(self) -> int:
        return self.rank * (self.in_features + self.out_features) * self.count

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        return ((self.rank, self.in_features), (self.out_features, self.rank))


def module_name(tensor: Tensor) -> str:
    """The module that holds `tensor`: its name without `.weight` or `.bias`."""
    return tensor.name.rsplit(".", 1)[0]


def matches(name: str, targets: tuple[str, ...]) -> bool:
    return any(name == t or name.endswith("." + t) for t in targets)


def lora_targets(model: ModelFacts, setup: TrainingSetup) -> tuple[str, ...]:
    """The linear modules to adapt: those asked for (`all-linear`: every one of the layers), else PEFT's defaults.

    Raises `UserError` for names that no linear layer of the model has.
    """
    linears = _linears(model)
    names = tuple(dict.fromkeys(module_name(t).rsplit(".", 1)[-1] for t in linears))
    if setup.lora_targets == ("all-linear",):
        return names
    if setup.lora_targets:
        missing = [t for t in setup.lora_targets if not any(matches(module_name(x), (t,)) for x in linears)]
        if missing:
            raise UserError(f"{model.name} has no linear layer called {', '.join(missing)}; it has: {', '.join(names)}")
        return setup.lora_targets
    known = LORA_TARGETS.get(model.model_type)
    if known and any(matches(module_name(x), known) for x in linears):
        return known
    for group in _SIMILAR:
        if all(any(matches(module_name(x), (t,)) for x in linears) for t in group):
            return group
    # By a name of its MLP, PEFT adapts a mixture's stacked experts too, and makes each layer's whole again in every
    # pass (peft 0.21, `ParamWrapper`): attention alone.
    attention = tuple(n for n in names if n not in _MLP)
    return attention if model.main.experts and attention else names


def adapters(model: ModelFacts, setup: TrainingSetup) -> tuple[Adapter, ...]:
    """LoRA matrices for the targets of `setup`, from the shapes of the tensors they stand beside."""
    targets = lora_targets(model, setup)
    return tuple(
        Adapter(module_name(t), t.shape[1], t.shape[0], setup.lora_rank, t.count)
        for t in _linears(model)
        if matches(module_name(t), targets)
    )


def is_head_or_embedding(tensor: Tensor) -> bool:
    return tensor.kind == "embedding" or (tensor.part == "head" and tensor.kind == "linear")


Shapes = tuple[tuple[tuple[int, ...], int, bool], ...]
"""(shape, how many, whether it is an embedding)."""


@dataclass(frozen=True, slots=True)
class Group:
    """Trained tensors that are stored in one width (bytes per element)."""

    shapes: Shapes
    width: int

    @property
    def numel(self) -> int:
        return sum(math.prod(shape) * count for shape, count, _ in self.shapes)


def trained_groups(model: ModelFacts, setup: TrainingSetup, *, base: int, adapter: int) -> tuple[Group, ...]:
    """What the optimizer keeps states for. `base`: width of the model's own weights, `adapter`: of added ones.

    PEFT's `modules_to_save` are copies of embeddings and head in the base's type.
    """
    if setup.method == "full":
        return (Group(tuple((t.shape, t.count, t.kind == "embedding") for t in model.tensors if not t.tied_to), base),)
    added: list[tuple[tuple[int, ...], int, bool]] = []
    if setup.method == "prompt":
        if setup.prompt_tokens:
            added.append(((setup.prompt_tokens, (model.encoder or model.main).hidden_size), 1, True))
    else:
        for a in adapters(model, setup):
            shapes = a.shapes[1:] if setup.lora_a_frozen else a.shapes
            added.extend((shape, a.count, False) for shape in shapes)
    copied: list[tuple[tuple[int, ...], int, bool]] = []
    if setup.train_norms:
        copied.extend((t.shape, t.count, False) for t in model.tensors if t.kind == "norm")
    if setup.train_embeddings:
        copied.extend(
            (t.shape, t.count, t.kind == "embedding")
            for t in model.tensors
            if is_head_or_embedding(t) and not t.tied_to
        )
    groups = (Group(tuple(added), adapter), Group(tuple(copied), base))
    return tuple(g for g in groups if g.shapes)


def trained_numel(model: ModelFacts, setup: TrainingSetup) -> int:
    """Trained elements. A prompt's and an adapter's are beside the model's own."""
    return sum(g.numel for g in trained_groups(model, setup, base=1, adapter=1))


def _linears(model: ModelFacts) -> tuple[Tensor, ...]:
    return tuple(
        t
        for t in model.tensors
        if t.kind == "linear" and t.part != "head" and t.layered and len(t.shape) == 2 and not t.expert
    )
