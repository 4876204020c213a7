"""What may be asked of a generation, checked: every parameter by name, type and range, unknown ones refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_STOPS = 8
MAX_STOP_CHARS = 256
MAX_ANSWERS = 8
_SEEDS = 2**63


class RequestError(Exception):
    """A request that is answered with an error: HTTP `status`, a machine's `code`, the parameter it is about.

    `fault` is the API's name for whose fault it is (`invalid_request_error`, `server_error`). `retry_after_s`: when to
    try again, with a 503.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str = "invalid_value",
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.code, self.param = message, status, code, param
        self.retry_after_s = retry_after_s

    @property
    def fault(self) -> str:
        return "invalid_request_error" if self.status < 500 else "server_error"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one answer is generated.

    `max_new_tokens`: None for as many as the settings allow. `temperature` 0 is greedy. `top_k` 0 and `top_p` 1 keep
    all tokens. `seed`: None draws one. Penalties as in OpenAI's API (presence, frequency: subtracted from the logits of
    what was generated) and Keskar et al. 2019 (repetition: arXiv:1909.05858, prompt included for decoder-only models).
    """

    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Greedy without penalties: the model's own scores decide."""
        return (
            self.temperature == 0
            and self.repetition_penalty == 1
            and self.presence_penalty == 0
            and self.frequency_penalty == 0
            and self.min_new_tokens == 0
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for, in tokens and characters. A `max_input_tokens` of None: the model's own window."""

    max_input_tokens: int | None = None
    max_output_tokens: int = 256
    max_input_chars: int = 200_000


def text(value: Any, name: str, max_chars: int) -> str:
    """`value` as text that a tokenizer can take. Raises `RequestError`."""
    if not isinstance(value, str):
        raise RequestError(f"{name} is {_kind(value)}; it must be text", code="invalid_type", param=name)
    if len(value) > max_chars:
        raise RequestError(
            f"{name} has {len(value):,} characters; at most {max_chars:,} are taken",
            status=413,
            code="too_long",
            param=name,
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{name} has half of a surrogate pair at character {error.start}, which is no text; send valid Unicode",
            code="invalid_unicode",
            param=name,
        ) from error
    if not value.strip():
        raise RequestError(f"{name} is empty; send some text", code="empty", param=name)
    return value


def integer(value: Any, name: str, low: int, high: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name} is {_kind(value)}; it must be a whole number", code="invalid_type", param=name)
    if not low <= value <= high:
        raise RequestError(f"{name} is {_short(value)}; it must be {low:,} to {high:,}", param=name)
    return value


def number(value: Any, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RequestError(f"{name} is {_kind(value)}; it must be a number", code="invalid_type", param=name)
    if not low <= value <= high or (isinstance(value, float) and math.isnan(value)):
        raise RequestError(f"{name} is {_short(value)}; it must be {low:g} to {high:g}", param=name)
    return float(value)


def boolean(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise RequestError(f"{name} is {_kind(value)}; it must be true or false", code="invalid_type", param=name)
    return value


def stops(value: Any, name: str) -> tuple[str, ...]:
    """One stop sequence or a list of them."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(s, str) for s in listed):
        raise RequestError(f"{name} must be text or a list of texts", code="invalid_type", param=name)
    if len(listed) > MAX_STOPS or any(not 1 <= len(s) <= MAX_STOP_CHARS for s in listed):
        raise RequestError(f"{name} takes up to {MAX_STOPS} texts of 1 to {MAX_STOP_CHARS} characters", param=name)
    return tuple(dict.fromkeys(listed))


def sampling(given: Mapping[str, Any], *, max_output_tokens: int, prefix: str = "", chat: bool = False) -> Sampling:
    """`Sampling` from the parameters of a request; those that are null count as not given.

    `prefix` is put before a name in errors (`parameters.`). Raises `RequestError` for the first that is wrong. Names
    of both dialects are understood: `max_new_tokens` and `max_tokens`, `stop` and `stop_sequences`.
    """
    read: dict[str, Any] = {}
    for key, value in given.items():
        if value is None:
            continue
        name = f"{prefix}{key}"
        checked: Any
        if key in ("max_new_tokens", "max_tokens") or (chat and key == "max_completion_tokens"):
            field, checked = "max_new_tokens", integer(value, name, 1, max_output_tokens)
        elif key == "min_new_tokens":
            field, checked = key, integer(value, name, 0, max_output_tokens)
        elif key in ("temperature", "top_p"):
            field, checked = key, number(value, name, 0, 2 if key == "temperature" else 1)
        elif key == "top_k":
            field, checked = key, max(0, integer(value, name, -1, 1_000_000))
        elif key == "repetition_penalty":
            field, checked = key, number(value, name, 0.1, 10)
        elif key in ("presence_penalty", "frequency_penalty"):
            field, checked = key, number(value, name, -2, 2)
        elif key == "seed":
            field, checked = key, integer(value, name, -_SEEDS, _SEEDS - 1)
        elif key in ("stop", "stop_sequences"):
            field, checked = "stop", stops(value, name)
        elif key == "do_sample":
            read["do_sample"] = boolean(value, name)
            continue
        else:
            raise unknown_parameter(name, KNOWN)
        if field in read and read[field] != checked:
            raise RequestError(f"{name} is given twice with different values", param=name)
        read[field] = checked
    return _settle(read, prefix)


KNOWN = (
    "max_new_tokens", "max_tokens", "min_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty",
    "presence_penalty", "frequency_penalty", "seed", "stop", "stop_sequences", "do_sample",
)  # fmt: skip


def unknown_parameter(name: str, known: tuple[str, ...]) -> RequestError:
    shown = name if len(name) <= 64 else f"{name[:64]}…"
    shown = repr(shown)[1:-1].encode("ascii", "backslashreplace").decode("ascii")
    return RequestError(f"unknown parameter {shown}; known: {', '.join(known)}", code="unknown_parameter", param=shown)


def _settle(read: dict[str, Any], prefix: str) -> Sampling:
    do_sample = read.pop("do_sample", None)
    if do_sample is True and "temperature" not in read:
        read["temperature"] = 1.0
    if do_sample is False:
        read["temperature"] = 0.0
    if do_sample is None and "temperature" not in read and read.get("top_p", 1.0) < 1:
        read["temperature"] = 1.0  # top_p without a temperature asks for sampling
    if read.get("top_p") == 0:
        read["top_p"], read["top_k"] = 1.0, 1
    if read.get("min_new_tokens", 0) > read.get("max_new_tokens", math.inf):
        raise RequestError(
            f"{prefix}min_new_tokens is {read['min_new_tokens']}, more than max_new_tokens {read['max_new_tokens']}",
            param=f"{prefix}min_new_tokens",
        )
    return Sampling(**read)


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _short(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a number of more than 18 digits"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
