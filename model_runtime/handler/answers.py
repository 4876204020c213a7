"""What goes back: whole answers in the form that was asked in, pieces of a stream, and errors that name the cause."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from model_runtime.handler.requests import Ask
from model_runtime.parameters import RequestError
from model_runtime.rows import Completion

JSON = "application/json"
SSE = "text/event-stream"
JSON_LINES = "application/jsonlines"


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP status and a JSON document. `retry_after_s`: when to try again, with a 503."""

    status: int
    body: Any
    retry_after_s: int | None = None

    @property
    def ok(self) -> bool:
        return self.status < 400

    def encode(self) -> bytes:
        return encode(self.body)


def encode(document: Any) -> bytes:
    """Compact JSON; NaN and infinity are refused by the encoder, for they are no JSON."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")


def error_reply(error: RequestError) -> Reply:
    """One shape for every form: OpenAI's `error` object, and `code` as DJL's own errors have it."""
    return Reply(
        error.status,
        {
            "code": error.status,
            "error": {"message": error.message, "type": error.fault, "code": error.code, "param": error.param},
        },
        error.retry_after_s,
    )


@dataclass(frozen=True, slots=True)
class Heading:
    """What an answer says of itself: the request's id, the seconds since the epoch, the model's name."""

    request_id: str
    created: int
    model: str


def generated(ask: Ask, done: Sequence[Completion], heading: Heading) -> Reply:
    """The whole answer to `ask`; `done` holds `ask.answers` completions for each text, in order."""
    if ask.form == "native":
        items = [_native(d) for d in done]
        return Reply(200, items if ask.listed else items[0])
    chat = ask.form == "chat"
    choices = []
    for i, d in enumerate(done):
        content = {"message": {"role": "assistant", "content": d.text, "refusal": None}} if chat else {"text": d.text}
        choices.append({"index": i, **content, "logprobs": None, "finish_reason": _openai_reason(d)})
    return Reply(
        200, {**_openai_head(ask, heading, chunk=False), "choices": choices, "usage": usage(done, ask.answers)}
    )


def classified(ask: Ask, done: Sequence[dict[str, float]]) -> Reply:
    """Labels with scores, best first, for each text: a list, or a list of lists where a list was asked."""
    items = []
    for scores in done:
        ordered = sorted(scores.items(), key=lambda pair: -pair[1])[: ask.labels]
        items.append([{"label": label, "score": score} for label, score in ordered])
    return Reply(200, items if ask.listed else items[0])


def usage(done: Sequence[Completion], answers: int) -> dict[str, int]:
    """Tokens in and out; a prompt that is answered several times counts once."""
    prompt = sum(d.input_tokens for d in done[::answers])
    out = sum(d.output_tokens for d in done)
    return {"prompt_tokens": prompt, "completion_tokens": out, "total_tokens": prompt + out}


def _native(done: Completion) -> dict[str, Any]:
    return {
        "generated_text": done.text,
        "details": {
            "finish_reason": done.finish_reason,
            "prompt_tokens": done.input_tokens,
            "generated_tokens": done.output_tokens,
            "truncated_tokens": done.truncated_tokens,
        },
    }


def _openai_reason(done: Completion) -> str:
    return "length" if done.finish_reason == "length" else "stop"


def _openai_head(ask: Ask, heading: Heading, *, chunk: bool) -> dict[str, Any]:
    chat = ask.form == "chat"
    kind = ("chat.completion.chunk" if chunk else "chat.completion") if chat else "text_completion"
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{heading.request_id}",
        "object": kind,
        "created": heading.created,
        "model": heading.model,
    }


@dataclass
class Streamed:
    """The pieces of one streamed answer: server-sent events for OpenAI's forms, JSON lines for the native one."""

    ask: Ask
    heading: Heading
    started: set[int] = field(default_factory=set)

    @property
    def media_type(self) -> str:
        return JSON_LINES if self.ask.form == "native" else SSE

    def piece(self, index: int, text: str) -> Iterator[bytes]:
        """The next `text` of answer number `index`."""
        if self.ask.form == "native":
            yield encode({"token": {"text": text}}) + b"\n"
            return
        if self.ask.form == "completions":
            yield self._event(index, {"text": text}, None)
            return
        if index not in self.started:
            self.started.add(index)
            yield self._event(index, {"delta": {"role": "assistant", "content": ""}}, None)
        yield self._event(index, {"delta": {"content": text}}, None)

    def end(self, reply: Reply, done: Sequence[Completion]) -> Iterator[bytes]:
        """The last pieces: why each answer ended, the usage where it was asked for; or the error."""
        if self.ask.form == "native":
            yield encode(reply.body if not reply.ok else {"token": {"text": ""}} | _native(done[0])) + b"\n"
            return
        if not reply.ok:
            yield _data(reply.body)
        else:
            for index, d in enumerate(done):
                if self.ask.form == "chat" and index not in self.started:
                    yield self._event(index, {"delta": {"role": "assistant", "content": ""}}, None)
                last: dict[str, Any] = {"delta": {}} if self.ask.form == "chat" else {"text": ""}
                yield self._event(index, last, _openai_reason(d))
            if self.ask.include_usage:
                head = _openai_head(self.ask, self.heading, chunk=True)
                yield _data({**head, "choices": [], "usage": usage(done, self.ask.answers)})
        yield b"data: [DONE]\n\n"

    def whole(self, reply: Reply, done: Sequence[Completion]) -> bytes:
        """The stream in one body, for an engine that cannot stream out of a batch."""
        parts: list[bytes] = []
        for index, d in enumerate(done if reply.ok else ()):
            if d.text:
                parts.extend(self.piece(index, d.text))
        return b"".join([*parts, *self.end(reply, done)])

    def _event(self, index: int, what: dict[str, Any], reason: str | None) -> bytes:
        choice = {"index": index, **what, "logprobs": None, "finish_reason": reason}
        return _data({**_openai_head(self.ask, self.heading, chunk=True), "choices": [choice]})


def _data(document: Any) -> bytes:
    return b"data: " + encode(document) + b"\n\n"
