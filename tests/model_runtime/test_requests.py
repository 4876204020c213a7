"""Request bodies: three forms read, everything else refused with a status, a code and the field's name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.handler.requests import Rules, read_request
from model_runtime.parameters import RequestError, Sampling

RULES = Rules(max_output_tokens=64, max_input_chars=1000, max_prompts=4)
LABELS = Rules(max_output_tokens=64, max_input_chars=1000, max_prompts=4, generates=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [
        "inputs",
        "parameters",
        "stream",
        "messages",
        "prompt",
        "n",
        "model",
        "stop",
        "logprobs",
        "stream_options",
        "tools",
    ]
)


def read(body: Any, rules: Rules = RULES) -> Any:
    return read_request(body if isinstance(body, bytes) else json.dumps(body).encode(), "application/json", rules)


def refused(body: Any, rules: Rules = RULES) -> RequestError:
    with pytest.raises(RequestError) as error:
        read(body, rules)
    return error.value


def test_the_native_form() -> None:
    ask = read({"inputs": "Hi", "parameters": {"max_new_tokens": 5, "truncate": False, "details": True}})
    assert (ask.form, ask.texts, ask.listed, ask.truncate) == ("native", ("Hi",), False, False)
    assert ask.sampling == Sampling(max_new_tokens=5)
    assert read({"inputs": ["a", "b"], "parameters": None}).listed
    assert read_request("Grüße".encode(), "text/plain; charset=utf-8", RULES).texts == ("Grüße",)


def test_openai_s_forms() -> None:
    chat = read(
        {
            "model": "any",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]},
            ],
            "max_completion_tokens": 7,
            "n": 2,
            "stream": True,
            "stream_options": {"include_usage": True},
            "logprobs": False,
            "user": "somebody",
        }
    )
    assert [m["content"] for m in chat.messages] == ["Be brief.", "Hi there"]
    assert (chat.answers, chat.stream, chat.include_usage, chat.truncate) == (2, True, True, False)
    assert chat.sampling.max_new_tokens == 7
    assert read({"prompt": ["a", "b"], "n": 2}).texts == ("a", "b")


def test_a_classifier_takes_inputs_and_a_number_of_labels() -> None:
    assert read({"inputs": "Hi", "parameters": {"top_k": 1}}, LABELS).labels == 1
    assert refused({"inputs": "Hi", "parameters": {"temperature": 1}}, LABELS).code == "unknown_parameter"
    assert refused({"prompt": "Hi"}, LABELS).code == "not_generative"


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"", 400, "empty", None),
        (b"{", 400, "invalid_json", None),
        (b"\xff\xfe", 400, "invalid_unicode", None),
        (b"[" * 100_000, 400, "invalid_json", None),
        (b'{"inputs": ' + b"9" * 5000 + b"}", 400, "invalid_json", None),
        (b'{"inputs": "a", "parameters": {"temperature": NaN}}', 400, "invalid_json", None),
        (b'{"inputs": "a", "inputs": "b"}', 400, "invalid_json", None),
        (b'{"inputs": "a\\ud800"}', 400, "invalid_unicode", "inputs"),
        (b"[]", 400, "invalid_type", None),
        (b"null", 400, "invalid_type", None),
        (b"{}", 400, "missing_field", "inputs"),
        ({"inputs": ""}, 400, "empty", "inputs"),
        ({"inputs": []}, 400, "invalid_value", "inputs"),
        ({"inputs": ["a", 1]}, 400, "invalid_type", "inputs[1]"),
        ({"inputs": ["a"] * 5}, 400, "invalid_value", "inputs"),
        ({"inputs": "x" * 1001}, 413, "too_long", "inputs"),
        ({"inputs": ["x" * 600, "x" * 600]}, 413, "too_long", "inputs"),
        ({"inputs": "a", "options": {}}, 400, "unknown_parameter", "options"),
        ({"inputs": "a", "parameters": {"tempo": 1}}, 400, "unknown_parameter", "parameters.tempo"),
        ({"inputs": "a", "parameters": []}, 400, "invalid_type", "parameters"),
        ({"inputs": ["a", "b"], "stream": True}, 400, "invalid_value", "stream"),
        ({"inputs": "a", "parameters": {"details": 1}}, 400, "invalid_type", "parameters.details"),
        ({"messages": []}, 400, "invalid_type", "messages"),
        ({"messages": [{"role": "pirate", "content": "a"}]}, 400, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": "user", "content": 1}]}, 400, "invalid_type", "messages[0].content"),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "empty", "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "x"}]}]}, 400, "unsupported", "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": "a" * 999}] * 2}, 413, "too_long", "messages"),
        ({"prompt": "a", "logprobs": 3}, 400, "unsupported", "logprobs"),
        ({"prompt": "a", "echo": 0}, 400, "unsupported", "echo"),
        ({"prompt": "a", "n": 9}, 400, "invalid_value", "n"),
        ({"prompt": ["a", "b"], "n": 3}, 400, "invalid_value", "n"),
        ({"prompt": "a", "max_completion_tokens": 3}, 400, "unknown_parameter", "max_completion_tokens"),
        ({"prompt": "a", "stream_options": 3}, 400, "invalid_type", "stream_options"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(body: Any, status: int, code: str, param: str | None) -> None:
    error = refused(body)
    assert (error.status, error.code, error.param) == (status, code, param)
    error.message.encode("utf-8")


@given(st.binary(max_size=200) | st.dictionaries(FIELDS | st.text(max_size=4), JSON, max_size=5))
def test_whatever_the_body_is_it_is_read_or_refused(body: Any) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    for rules in (RULES, LABELS):
        try:
            ask = read_request(raw, "application/json", rules)
        except RequestError as error:
            assert error.status in (400, 413)
            json.dumps({"message": error.message, "param": error.param}).encode("utf-8")
        else:
            assert ask.texts or ask.messages
