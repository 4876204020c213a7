"""Request bodies: the native form and OpenAI's two, read item by item into what is asked, or refused with a reason."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from model_runtime.parameters import (
    MAX_ANSWERS,
    RequestError,
    Sampling,
    boolean,
    integer,
    sampling,
    text,
    unknown_parameter,
)

Form = Literal["native", "chat", "completions"]
_ROLES = ("system", "developer", "user", "assistant", "tool")
_MAX_MESSAGES = 1_000
# Fields of OpenAI's API that change nothing in an answer here.
_IGNORED = frozenset({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"})
_OPENAI = ("model", "stream", "stream_options", "n", "echo", "best_of")
_SAMPLING = frozenset(
    {
        "max_tokens", "max_completion_tokens", "min_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty",
        "presence_penalty", "frequency_penalty", "seed", "stop",
    }
)  # fmt: skip
# Fields whose neutral value asks for nothing; any other value asks for what this server does not do.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "logprobs": (None, False, 0),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "suffix": (None, ""),
    "echo": (None, False),
    "best_of": (None, 1),
    "modalities": (None, ["text"]),
}


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request asks: `texts` (or one chat's `messages`), each answered `answers` times.

    `listed`: the native form's inputs were a list, so the answer is one. `top_k`: labels of a classifier's answer.
    """

    form: Form
    texts: tuple[str, ...] = ()
    messages: tuple[dict[str, str], ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    answers: int = 1
    listed: bool = False
    truncate: bool = True
    stream: bool = False
    include_usage: bool = False
    labels: int | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What bounds a request: output tokens, characters of a text, texts of a request; whether the model generates."""

    max_output_tokens: int
    max_input_chars: int
    max_prompts: int
    generates: bool = True


def read_request(body: bytes, content_type: str, rules: Rules) -> Ask:
    """The `Ask` in a request's `body`. Raises `RequestError`; nothing else is raised whatever the bytes are."""
    if content_type.split(";", maxsplit=1)[0].strip().lower() == "text/plain":
        return Ask("native", texts=(text(_decoded(body), "the body", rules.max_input_chars),))
    given = parse_json(body)
    if not isinstance(given, dict):
        raise RequestError("the body must be a JSON object", code="invalid_type")
    if "messages" in given:
        return _chat(given, rules)
    if "prompt" in given:
        return _completions(given, rules)
    if "inputs" in given:
        return _native(given, rules)
    raise RequestError(
        'the body names nothing to answer; send {"inputs": "text"}, or OpenAI\'s "messages" or "prompt"',
        code="missing_field",
        param="inputs",
    )


def parse_json(body: bytes) -> Any:
    """JSON as the standard has it: NaN and Infinity, doubled keys, and what no parser survives are refused."""
    if not body.strip():
        raise RequestError("the body is empty; send a JSON object", code="empty")
    try:
        return json.loads(_decoded(body), parse_constant=_no_constant, object_pairs_hook=_unique)
    except RecursionError:
        raise RequestError("the JSON is nested too deeply", code="invalid_json") from None
    except ValueError as error:
        raise RequestError(f"the body is no JSON: {str(error)[:120]}", code="invalid_json") from None


def _decoded(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8 (byte {error.start})", code="invalid_unicode") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _native(given: dict[str, Any], rules: Rules) -> Ask:
    for key in given:
        if key not in ("inputs", "parameters", "stream"):
            raise unknown_parameter(key, ("inputs", "parameters", "stream"))
    texts, listed = _texts(given["inputs"], "inputs", rules)
    parameters = given.get("parameters")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise RequestError("parameters must be an object", code="invalid_type", param="parameters")
    stream = _stream(given, texts, rules)
    rest = {k: v for k, v in parameters.items() if k not in ("truncate", "return_full_text", "details")}
    truncate = parameters.get("truncate")
    truncate = True if truncate is None else boolean(truncate, "parameters.truncate")
    for name in ("return_full_text", "details"):
        value = parameters.get(name)
        if value is not None and boolean(value, f"parameters.{name}") and name == "return_full_text":
            raise RequestError(
                "parameters.return_full_text is true; only the answer is returned", param="parameters.return_full_text"
            )
    if not rules.generates:
        top = rest.pop("top_k", None)
        labels = None if top is None else integer(top, "parameters.top_k", 1, 1_000_000)
        if any(v is not None for v in rest.values()):
            raise unknown_parameter(f"parameters.{next(iter(rest))}", ("top_k", "truncate"))
        return Ask("native", texts=texts, listed=listed, truncate=truncate, labels=labels)
    read = sampling(rest, max_output_tokens=rules.max_output_tokens, prefix="parameters.")
    return Ask("native", texts=texts, sampling=read, listed=listed, truncate=truncate, stream=stream)


def _chat(given: dict[str, Any], rules: Rules) -> Ask:
    _needs_generation(rules)
    messages = given["messages"]
    if not isinstance(messages, list) or not messages:
        raise RequestError("messages must be a list of at least one message", code="invalid_type", param="messages")
    if len(messages) > _MAX_MESSAGES:
        raise RequestError(
            f"messages has {len(messages):,} items; at most {_MAX_MESSAGES:,} are taken", param="messages"
        )
    read = tuple(_message(m, f"messages[{i}]", rules) for i, m in enumerate(messages))
    length = sum(len(m["content"]) for m in read)
    if length > rules.max_input_chars:
        raise RequestError(
            f"messages have {length:,} characters; at most {rules.max_input_chars:,} are taken",
            status=413,
            code="too_long",
            param="messages",
        )
    if not any(m["content"].strip() for m in read):
        raise RequestError("messages are empty; send some text", code="empty", param="messages")
    return _openai("chat", given, rules, messages=read)


def _completions(given: dict[str, Any], rules: Rules) -> Ask:
    _needs_generation(rules)
    texts, _ = _texts(given["prompt"], "prompt", rules)
    return _openai("completions", given, rules, texts=texts)


def _openai(form: Form, given: dict[str, Any], rules: Rules, **what: Any) -> Ask:
    known = {"messages" if form == "chat" else "prompt", *_OPENAI, *_SAMPLING, *_IGNORED, *_NEUTRAL}
    for key, value in given.items():
        if key not in known:
            raise unknown_parameter(key, tuple(sorted(known - _IGNORED - set(_NEUTRAL))))
        if key in _NEUTRAL and not any(type(value) is type(n) and value == n for n in _NEUTRAL[key]):
            raise RequestError(f"{key} is not supported here; leave it out", code="unsupported", param=key)
    model = given.get("model")
    if model is not None:
        text(model, "model", 1_000)
    answers = given.get("n")
    answers = 1 if answers is None else integer(answers, "n", 1, MAX_ANSWERS)
    count = answers * max(1, len(what.get("texts", ())))
    if count > rules.max_prompts:
        raise RequestError(f"{count} answers are asked for; at most {rules.max_prompts} of one request", param="n")
    options = given.get("stream_options")
    include_usage = False
    if options is not None:
        if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
            raise RequestError("stream_options takes include_usage", code="invalid_type", param="stream_options")
        usage = options.get("include_usage")
        include_usage = usage is not None and boolean(usage, "stream_options.include_usage")
    read = sampling(
        {k: v for k, v in given.items() if k in _SAMPLING},
        max_output_tokens=rules.max_output_tokens,
        chat=form == "chat",
    )
    stream = given.get("stream")
    return Ask(
        form,
        sampling=read,
        answers=answers,
        truncate=form != "chat",  # a chat that is cut has lost its template's beginning
        stream=stream is not None and boolean(stream, "stream"),
        include_usage=include_usage,
        **what,
    )


def _message(message: Any, name: str, rules: Rules) -> dict[str, str]:
    if not isinstance(message, dict):
        raise RequestError(f"{name} must be an object", code="invalid_type", param=name)
    for key, value in message.items():
        if key not in ("role", "content", "name") and value not in (None, [], ""):
            raise unknown_parameter(f"{name}.{key}", ("role", "content", "name"))
    role = message.get("role")
    if role not in _ROLES:
        raise RequestError(f"{name}.role must be one of {', '.join(_ROLES)}", param=f"{name}.role")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part(p, f"{name}.content[{i}]", rules) for i, p in enumerate(content[:_MAX_MESSAGES]))
    if content is None or content == "":
        return {"role": role, "content": ""}
    if isinstance(content, str) and not content.strip():
        return {"role": role, "content": content}
    return {"role": role, "content": text(content, f"{name}.content", rules.max_input_chars)}


def _part(part: Any, name: str, rules: Rules) -> str:
    if not isinstance(part, dict) or part.get("type") != "text":
        raise RequestError(f"{name} must be a part of type text", code="unsupported", param=name)
    return text(part.get("text"), f"{name}.text", rules.max_input_chars)


def _texts(value: Any, name: str, rules: Rules) -> tuple[tuple[str, ...], bool]:
    if not isinstance(value, list):
        return (text(value, name, rules.max_input_chars),), False
    if not 1 <= len(value) <= rules.max_prompts:
        raise RequestError(f"{name} has {len(value):,} texts; 1 to {rules.max_prompts} are taken", param=name)
    read = tuple(text(v, f"{name}[{i}]", rules.max_input_chars) for i, v in enumerate(value))
    if sum(map(len, read)) > rules.max_input_chars:
        raise RequestError(
            f"{name} have {sum(map(len, read)):,} characters together; at most {rules.max_input_chars:,} are taken",
            status=413,
            code="too_long",
            param=name,
        )
    return read, True


def _stream(given: dict[str, Any], texts: tuple[str, ...], rules: Rules) -> bool:
    value = given.get("stream")
    stream = value is not None and boolean(value, "stream")
    if stream and (len(texts) > 1 or not rules.generates):
        raise RequestError("stream takes one text of a model that generates", param="stream")
    return stream


def _needs_generation(rules: Rules) -> None:
    if not rules.generates:
        raise RequestError(
            'this model classifies and generates nothing; send {"inputs": "text"}',
            code="not_generative",
            param="inputs",
        )
