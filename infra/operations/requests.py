"""What was asked and answered, as it was kept: a host's request log, SageMaker's data capture, or a file.

Data capture: Amazon SageMaker developer guide, "Capture data from real-time endpoint" (`captureData` with the two
bodies, base64 unless a content type is named; `eventMetadata` with `eventId` and the caller's `inferenceId`).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.operations.lines import Found, Line

OPENAI_PREFIXES = ("chatcmpl-", "cmpl-")
"""What OpenAI's forms put before the request's id in an answer's own `id`."""
_IDS = ("request_id", "id")
_INPUTS = ("input", "inputs", "prompt", "text")
_ANSWERS = ("answer", "prediction", "generated_text", "output")


class _OddError(Exception):
    """A line that is no request, with what is wrong."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `answers` are those to each of `inputs`; a chat has its `messages` as well."""

    ids: tuple[str, ...]
    inputs: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
    messages: tuple[Mapping[str, str], ...] = ()
    where: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether one text was answered once, so that feedback on the request is feedback on that answer."""
        return len(self.inputs) == 1 and len(self.answers) == 1 and len(self.answers[0]) == 1


@dataclass
class Requests:
    """Requests by each of their ids, and what could not be read."""

    by_id: dict[str, Request] = field(default_factory=dict)
    count: int = 0
    bad: list[str] = field(default_factory=list)

    def take(self, found: Found) -> None:
        """Add the requests of `found`; of two with one id the later line stands."""
        self.bad += found.bad
        for line in found.lines:
            try:
                request = read_request_line(line)
            except _OddError as error:
                self.bad.append(f"{line.where}: {error}")
                continue
            self.count += 1
            for each in request.ids:
                self.by_id[plain_id(each)] = request

    def of(self, request_id: str) -> Request | None:
        return self.by_id.get(plain_id(request_id))


def plain_id(given: str) -> str:
    """A request's id without what OpenAI's forms put before it."""
    for prefix in OPENAI_PREFIXES:
        if given.startswith(prefix):
            return given.removeprefix(prefix)
    return given


def read_request_line(line: Line) -> Request:
    """A captured request, a line of the request log, or `request_id`, `input` and `answer`."""
    value = line.value
    if not isinstance(value, dict):
        raise _OddError("it is no JSON object")
    if "captureData" in value:
        return _captured(value, line.where)
    ids = tuple(str(value[key]) for key in _IDS if isinstance(value.get(key), str) and value[key])
    if not ids:
        raise _OddError("it names no request_id")
    messages = _messages(value.get("messages"))
    inputs = _texts(value, _INPUTS) or ((messages[-1]["content"],) if messages else ())
    if not inputs:
        raise _OddError("it has no input")
    return Request(ids, inputs, _answers(value), messages, line.where)


def _texts(value: Mapping[str, Any], names: Iterable[str]) -> tuple[str, ...]:
    for name in names:
        given = value.get(name)
        if isinstance(given, str):
            return (given,)
        if isinstance(given, list) and given and all(isinstance(text, str) for text in given):
            return tuple(given)
    return ()


def _messages(given: Any) -> tuple[Mapping[str, str], ...]:
    if not isinstance(given, list):
        return ()
    good = [
        {"role": m["role"], "content": m["content"]}
        for m in given
        if isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
    ]
    return tuple(good) if len(good) == len(given) else ()


def _answers(value: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    given = value.get("answers")
    if isinstance(given, list):
        lists = [a if isinstance(a, list) else [a] for a in given]
        if all(isinstance(text, str) for texts in lists for text in texts):
            return tuple(tuple(texts) for texts in lists)
    return tuple((text,) for text in _texts(value, _ANSWERS))


def _captured(value: Mapping[str, Any], where: str) -> Request:
    captured, event = value["captureData"], value.get("eventMetadata")
    if not isinstance(captured, dict) or not isinstance(event, dict):
        raise _OddError("its captureData or eventMetadata is no object")
    asked = _json_body(captured.get("endpointInput"), "input")
    if not isinstance(asked, dict):
        raise _OddError("the captured input is no JSON object")
    answered = _json_body(captured.get("endpointOutput"), "output")
    ids = [event[key] for key in ("inferenceId", "eventId") if isinstance(event.get(key), str) and event[key]]
    if isinstance(answered, dict) and isinstance(answered.get("id"), str):
        ids.append(answered["id"])
    if not ids:
        raise _OddError("its eventMetadata names no id")
    messages = _messages(asked.get("messages"))
    inputs = (messages[-1]["content"],) if messages else _texts(asked, _INPUTS)
    if not inputs:
        raise _OddError("the captured input asks for nothing that is known")
    answers = _answered(answered, len(inputs))
    if not answers:
        raise _OddError("the captured output holds no answer")
    return Request(tuple(ids), inputs, answers, messages, where)


def _json_body(part: Any, what: str) -> Any:
    """The JSON of one captured side. Raises `_OddError` where it was not captured or is none."""
    if not isinstance(part, dict) or not isinstance(part.get("data"), str):
        raise _OddError(f"the {what} was not captured; capture both")
    data = part["data"]
    try:
        text = base64.b64decode(data, validate=True).decode("utf-8") if part.get("encoding") == "BASE64" else data
        return json.loads(text)
    except (binascii.Error, ValueError, RecursionError) as error:
        raise _OddError(f"the captured {what} is no JSON ({str(error)[:60]})") from None


def _answered(document: Any, inputs: int) -> tuple[tuple[str, ...], ...]:
    """The answers in an answer's body: the native form, OpenAI's two, a classifier's labels; none where it is another's
    or an error."""
    if isinstance(document, dict) and isinstance(document.get("choices"), list):
        texts = [_choice(choice) for choice in document["choices"]]
        good = [text for text in texts if text is not None]
        each = len(good) // inputs
        return tuple(tuple(good[at : at + each]) for at in range(0, len(good), each)) if each else ()
    items = document if isinstance(document, list) else [document]
    if items and all(isinstance(item, dict) and "label" in item for item in items):
        return ((str(items[0]["label"]),),)
    found = []
    for item in items:
        if isinstance(item, list) and item and isinstance(item[0], dict) and "label" in item[0]:
            found.append((str(item[0]["label"]),))
        elif isinstance(item, dict) and isinstance(item.get("generated_text"), str):
            found.append((item["generated_text"],))
    return tuple(found)


def _choice(choice: Any) -> str | None:
    if not isinstance(choice, dict):
        return None
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    return text if isinstance(text, str) else None
