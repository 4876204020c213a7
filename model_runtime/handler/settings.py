"""The settings of a model folder: `serving.properties`, rendered from a choice and read back where the model runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from model_runtime.errors import ModelError
from model_runtime.load import LoadOptions
from model_runtime.parameters import Limits
from model_runtime.precision import DTYPES, QUANTIZATIONS, canonical

FILE = "serving.properties"
MAX_BATCH_SIZE = 256
"""DJL's Python engine numbers a batch's requests with three digits."""
_SAFE = re.compile(r"[\w./:@+=,~ -]*")


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """What a model folder serves and how.

    `model`: where the weights are: a folder (relative to the model folder or absolute), `s3://…` or a hub id.
    `batch_size` requests at most are answered together; the first of them waits `max_batch_delay_ms` for others.
    `max_input_tokens` None: the model's own window. `max_prompts`: texts (times answers) of one request at most.
    `job_queue_size`: requests that may wait before a 503. `metrics`: `stdout`, `off`, a file that CloudWatch's agent
    reads, or `auto`: the host's metrics file where its folder is, else stdout. (DJL puts a prefix before what a model
    prints, which no longer is embedded metric format: on a host the file is the way.)
    `request_log_percent`: the share of answered requests whose input and answer are kept, in `request_log_dir` and from
    there under the S3 prefix `request_log_uri`; 0 keeps none.
    """

    model: str
    model_name: str = "model"
    dtype: str = "auto"
    quantize: str = ""
    device: str = "auto"
    tensor_parallel_degree: int = 1
    batch_size: int = 8
    max_batch_delay_ms: int = 20
    max_input_tokens: int | None = None
    max_output_tokens: int = 256
    max_input_chars: int = 200_000
    max_prompts: int = 16
    job_queue_size: int = 100
    predict_timeout_s: int = 120
    model_loading_timeout_s: int = 1800
    allow_pickle: bool = False
    metrics: str = "auto"
    metrics_namespace: str = "Berth"
    request_log_percent: int = 0
    request_log_dir: str = "/var/log/berth/requests"
    request_log_uri: str = ""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("tensor_parallel_degree", 1, 64),
            ("batch_size", 1, MAX_BATCH_SIZE),
            ("max_batch_delay_ms", 0, 60_000),
            ("max_output_tokens", 1, 1_000_000),
            ("max_input_chars", 1, 100_000_000),
            ("max_prompts", 1, 1_000),
            ("job_queue_size", 1, 100_000),
            ("predict_timeout_s", 1, 86_400),
            ("model_loading_timeout_s", 1, 86_400),
            ("request_log_percent", 0, 100),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ModelError(f"{name} is {value}; it must be {low:,} to {high:,}")
        if self.max_input_tokens is not None and self.max_input_tokens < 1:
            raise ModelError(f"max_input_tokens is {self.max_input_tokens}; it must be at least 1, or left out")
        if canonical(self.dtype) not in ("auto", *DTYPES):
            raise ModelError(f"dtype is {self.dtype!r}; one of auto, {', '.join(DTYPES)}")
        if canonical(self.quantize) not in ("", "none", *QUANTIZATIONS):
            raise ModelError(f"quantize is {self.quantize!r}; one of none, {', '.join(QUANTIZATIONS)}")
        for field in (
            "model", "model_name", "metrics", "metrics_namespace", "device", "request_log_dir", "request_log_uri",
        ):  # fmt: skip
            value = getattr(self, field)
            if field == "request_log_uri" and not value:
                continue
            if not value or value != value.strip() or not _SAFE.fullmatch(value):
                raise ModelError(f"{field} is {value!r}; letters, digits and ./:@+=,~_- only, and not empty")

    @property
    def load_options(self) -> LoadOptions:
        return LoadOptions(
            self.dtype, self.quantize, self.device, allow_pickle=self.allow_pickle, spread=self.tensor_parallel_degree
        )

    @property
    def limits(self) -> Limits:
        return Limits(self.max_input_tokens, self.max_output_tokens, self.max_input_chars)

    def location(self, folder: Path, environment: Mapping[str, str]) -> str:
        """`model` as something to load: a relative folder is one inside the model folder.

        `BERTH_MODEL_DIR` in the `environment` wins: where the host, or a SageMaker channel, has put the weights.
        """
        if environment.get("BERTH_MODEL_DIR"):
            return environment["BERTH_MODEL_DIR"]
        if self.model == "." or self.model.startswith(("./", "../")) or (folder / self.model).is_dir():
            return str((folder / self.model).resolve())
        return self.model


_ENGINE = {
    # Names of DJL Serving; the rest are options of this handler (DJL passes what it does not know to the handler).
    "batch_size": "batch_size",
    "max_batch_delay_ms": "max_batch_delay",
    "job_queue_size": "job_queue_size",
    "predict_timeout_s": "option.predict_timeout",
    "model_loading_timeout_s": "option.model_loading_timeout",
    "model": "option.model_location",
}
_HEAD = """\
# Written by berth bundle. DJL Serving (LMI) reads it where the model runs, and so does berth serve.
engine=Python
option.entryPoint=model.py
# The handler batches by itself: no rolling batch, so that encoder-decoders are not sent to vLLM, which refuses them.
option.rolling_batch=disable
minWorkers=1
maxWorkers=1
"""


def render(settings: ServingSettings) -> str:
    """`settings` as the text of a `serving.properties`; `read_properties` gives the same settings back."""
    lines = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value in (None, ""):
            continue
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        lines.append(f"{_ENGINE.get(field.name, f'option.{field.name}')}={shown}")
    return _HEAD + "\n".join(lines) + "\n"


def parse_properties(text: str) -> dict[str, str]:
    """Keys and values of a `serving.properties`, as they stand."""
    pairs = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", "!")):
            continue
        key, separator, value = line.partition("=")
        if not separator:
            raise ModelError(f"{FILE} line {number} has no '=': {line[:80]!r}")
        pairs[key.strip()] = value.strip()
    return pairs


def read_properties(given: Mapping[str, Any]) -> ServingSettings:
    """Settings from properties, with or without `option.` before a key (the engine takes it off). Others are left."""
    plain = {key.removeprefix("option."): value for key, value in given.items()}
    read: dict[str, Any] = {}
    for field in fields(ServingSettings):
        value = plain.get(_ENGINE.get(field.name, field.name).removeprefix("option."))
        if value is None or value == "":
            continue
        read[field.name] = _typed(field.name, str(field.type), str(value))
    if "model" not in read:
        raise ModelError(
            f"{FILE} has no option.model_location: where the weights are; write the folder with berth bundle"
        )
    return ServingSettings(**read)


def read_folder(folder: Path) -> ServingSettings:
    """The settings of a model folder. Raises `ModelError` when it is none."""
    path = folder / FILE
    if not path.is_file():
        raise ModelError(f"{folder} has no {FILE}; make a model folder with berth bundle, or give a model's folder")
    return read_properties(parse_properties(path.read_text(encoding="utf-8")))


def _typed(name: str, kind: str, value: str) -> Any:
    if kind == "bool":
        if value.lower() not in ("true", "false"):
            raise ModelError(f"{name} is {value!r}; true or false")
        return value.lower() == "true"
    if kind.startswith("int"):
        try:
            return int(value)
        except ValueError:
            raise ModelError(f"{name} is {value!r}; it must be a whole number") from None
    return value
