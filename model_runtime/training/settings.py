"""What a fine-tuning run is told: one JSON file, checked before anything is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from model_runtime.data.examples import FORMS
from model_runtime.errors import ModelError

Method = Literal["full", "lora", "qlora"]
METHODS: tuple[Method, ...] = get_args(Method)
SCHEDULES = ("cosine", "linear", "constant")
PRECISIONS = ("auto", "bf16", "fp16", "fp32")


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """Paths are relative to the settings file. What the plan says wins over what stands here, and that is said aloud.

    Lengths are in tokens, shares in parts of 1.
    """

    model: str
    """A folder, s3://BUCKET/PREFIX or a hub id."""
    data: str
    """A file (JSON lines, CSV, Parquet), s3://BUCKET/KEY, or a folder with train.*."""
    output: str
    """The folder of the run: checkpoints, metrics, the artifact."""
    model_name: str = ""
    """What the base model is called in records, for its licence; empty: the plan's, else `model`."""
    plan: str = ""
    """The folder that `berth size --for training` wrote: accelerate, DeepSpeed, training arguments, training plan."""
    upload: str = ""
    """s3://BUCKET/PREFIX under which checkpoints and the artifact go."""
    validation: str = ""
    test: str = ""
    form: str = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    """{"input": "article"} where a column has another name."""
    validation_share: float = 0.05
    test_share: float = 0.1
    prompt: str = "{input}"
    """What the model is given; {input} stands for the example's input."""
    method: str = "full"
    precision: str = "auto"
    lora_rank: int = 16
    lora_alpha: int = 0
    """0: twice the rank."""
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = ()
    """Empty: PEFT's for the model's type."""
    micro_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    processes: int = 1
    """On this machine, where no plan says it."""
    epochs: float = 3.0
    learning_rate: float = 0.0
    """0: 1e-4 for full, 2e-4 for adapters."""
    schedule: str = "cosine"
    warmup_share: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    gradient_checkpointing: bool = False
    max_input_tokens: int = 0
    """0: what the model takes."""
    max_target_tokens: int = 0
    context_window: int = 0
    """A longer one than the model's own; 0: its own."""
    packing: bool = False
    length_bucketing: bool = True
    seed: int = 0
    evaluations: int = 0
    """Evenly over the run; 0: one an epoch."""
    patience: int = 0
    """Evaluations without a lower loss after which training stops; 0: never."""
    checkpoint_minutes: float = 15.0
    keep_checkpoints: int = 2
    logging_steps: int = 10
    tensorboard: bool = False
    preflight: bool = True
    """Try two steps with the longest batch before the first epoch."""
    memory_cap_bytes: int = 0
    """Use no more of each device than this, to try a smaller one; on a CPU, no more than this beyond the
    loaded model. 0: all."""
    usd_per_hour: float = 0.0
    """Of all machines together; 0: not known."""
    instance_type: str = ""
    licence: str = ""
    """Of the base model; empty: what the catalogue knows."""
    attention: str = "sdpa"
    device: str = "auto"
    allow_pickle: bool = False
    metrics: str = "off"
    """Where CloudWatch's metric lines go: off, stdout, auto or a file."""
    namespace: str = "Berth"

    def __post_init__(self) -> None:
        _choice("form", self.form, ("auto", *FORMS))
        _choice("method", self.method, METHODS)
        _choice("schedule", self.schedule, SCHEDULES)
        _choice("precision", self.precision, PRECISIONS)
        _choice("attention", self.attention, ("sdpa", "eager", "flash_attention_2"))
        _choice("device", self.device, ("auto", "cpu", "cuda"))
        for name in ("model", "data", "output"):
            if not getattr(self, name):
                raise ModelError(f"{name} is missing")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise ModelError(f"{name} is {value}; it must be {low:,} to {high:,}")
        if self.validation_share + self.test_share >= 1:
            raise ModelError("validation_share and test_share leave nothing to train with")
        if self.prompt.count("{input}") != 1:
            raise ModelError(f"prompt is {self.prompt!r}; it must hold {{input}} once")
        if self.packing and self.form in ("seq2seq", "classification"):
            raise ModelError(f"packing is for text and chat of decoder-only models, not for {self.form}")

    @property
    def rate(self) -> float:
        """The learning rate that is used."""
        return self.learning_rate or (1e-4 if self.method == "full" else 2e-4)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("validation_share", 0, 0.9),
    ("test_share", 0, 0.9),
    ("lora_rank", 1, 65_536),
    ("lora_alpha", 0, 1_000_000),
    ("lora_dropout", 0, 0.9),
    ("micro_batch_size", 1, 100_000),
    ("gradient_accumulation_steps", 1, 1_000_000),
    ("processes", 1, 1024),
    ("epochs", 1e-6, 10_000),
    ("learning_rate", 0, 10),
    ("warmup_share", 0, 1),
    ("weight_decay", 0, 10),
    ("max_grad_norm", 0, 1e6),
    ("max_input_tokens", 0, 10_000_000),
    ("max_target_tokens", 0, 10_000_000),
    ("context_window", 0, 10_000_000),
    ("seed", 0, 2**32 - 1),
    ("evaluations", 0, 100_000),
    ("patience", 0, 100_000),
    ("checkpoint_minutes", 0.00001, 10_000),
    ("keep_checkpoints", 1, 1000),
    ("logging_steps", 1, 1_000_000),
    ("memory_cap_bytes", 0, 2**60),
    ("usd_per_hour", 0, 1e6),
)
_TYPES = {name: hint for name, hint in get_type_hints(FinetuneSettings).items() if not name.startswith("_")}


def _choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ModelError(f"{name} is {value!r}; one of {', '.join(known)}")


def settings_from(given: Mapping[str, Any], where: str) -> FinetuneSettings:
    """Settings from a JSON object. Raises `ModelError` naming the first key that is unknown or of a wrong type."""
    known = {f.name for f in fields(FinetuneSettings)}
    read: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            near = get_close_matches(key, known, n=2)
            raise ModelError(
                f"{where}: unknown setting {key}" + (f"; did you mean {' or '.join(near)}?" if near else "")
            )
        read[key] = _typed(key, value, where)
    missing = [name for name in ("model", "data", "output") if name not in read]
    if missing:
        raise ModelError(f"{where}: {', '.join(missing)} missing")
    try:
        return FinetuneSettings(**read)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error


def _typed(key: str, value: Any, where: str) -> Any:
    wanted = _TYPES[key]
    origin = get_origin(wanted)
    if origin is tuple and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    if origin is dict and isinstance(value, dict) and all(isinstance(v, str) for v in value.values()):
        return value
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is None and type(value) is wanted:
        return value
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    name = names.get(wanted) or ("a list of texts" if origin is tuple else "an object of texts")
    raise ModelError(f"{where}: {key} is {value!r}; it must be {name}")


def read_settings(path: Path) -> FinetuneSettings:
    """Settings from a file, its paths made absolute. Raises `ModelError`."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(given, dict):
        raise ModelError(f"{path} holds no JSON object")
    settings = settings_from(given, str(path))
    base = path.resolve().parent

    def absolute(value: str, *, must_look_local: bool) -> str:
        if not value or "://" in value or Path(value).is_absolute():
            return value
        local = base / value
        return str(local) if must_look_local or local.exists() else value

    return replace(
        settings,
        output=absolute(settings.output, must_look_local=True),
        plan=absolute(settings.plan, must_look_local=True),
        data=absolute(settings.data, must_look_local=True),
        validation=absolute(settings.validation, must_look_local=True),
        test=absolute(settings.test, must_look_local=True),
        model=absolute(settings.model, must_look_local=False),
    )
