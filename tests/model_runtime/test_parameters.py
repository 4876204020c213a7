"""Sampling parameters: both dialects, every wrong value an error that names it, nothing else ever raised."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.parameters import KNOWN, RequestError, Sampling, sampling, text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(KNOWN) | st.text(max_size=8), JSON, max_size=6))
def test_whatever_is_given_is_read_or_refused_by_name(given_parameters: dict[str, Any]) -> None:
    try:
        read = sampling(given_parameters, max_output_tokens=64, prefix="parameters.")
    except RequestError as error:
        assert error.status == 400
        assert "\n" not in error.message or "\n" in str(given_parameters)
        assert error.param is not None
        assert error.param.startswith("parameters.")
        return
    assert read.max_new_tokens is None or 1 <= read.max_new_tokens <= 64
    assert 0 <= read.temperature <= 2
    assert 0 < read.top_p <= 1


@pytest.mark.parametrize(
    ("given_parameters", "read"),
    [
        ({}, Sampling()),
        ({"temperature": None, "stop": None}, Sampling()),
        ({"max_tokens": 5}, Sampling(max_new_tokens=5)),
        ({"max_new_tokens": 5.0, "max_tokens": 5}, Sampling(max_new_tokens=5)),
        ({"do_sample": True}, Sampling(temperature=1.0)),
        ({"do_sample": False, "temperature": 0.7}, Sampling()),
        ({"top_p": 0.9}, Sampling(temperature=1.0, top_p=0.9)),
        ({"top_k": -1, "temperature": 1}, Sampling(temperature=1.0)),
        ({"stop": "a"}, Sampling(stop=("a",))),
        ({"stop_sequences": ["a", "b", "a"]}, Sampling(stop=("a", "b"))),
    ],
)
def test_both_dialects_are_read(given_parameters: dict[str, Any], read: Sampling) -> None:
    assert sampling(given_parameters, max_output_tokens=64) == read


@pytest.mark.parametrize(
    ("given_parameters", "says"),
    [
        ({"temprature": 1}, "unknown parameter temprature; known: max_new_tokens"),
        ({"temperature": "hot"}, "temperature is text; it must be a number"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": 10**400}, "more than 18 digits"),
        ({"max_new_tokens": 65}, "max_new_tokens is 65; it must be 1 to 64"),
        ({"max_new_tokens": True}, "must be a whole number"),
        ({"max_new_tokens": 4, "max_tokens": 5}, "given twice"),
        ({"max_tokens": 4, "min_new_tokens": 5}, "more than max_new_tokens"),
        ({"stop": [""]}, "1 to 256 characters"),
        ({"stop": ["a"] * 9}, "up to 8 texts"),
        ({"stop": {"a": 1}}, "text or a list of texts"),
    ],
)
def test_a_wrong_parameter_is_named(given_parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError) as error:
        sampling(given_parameters, max_output_tokens=64)
    assert says in error.value.message


@pytest.mark.parametrize(
    ("value", "status", "code"),
    [
        ("", 400, "empty"),
        (" \n\t", 400, "empty"),
        (None, 400, "invalid_type"),
        (7, 400, "invalid_type"),
        ("a\ud800", 400, "invalid_unicode"),
        ("x" * 101, 413, "too_long"),
    ],
)
def test_text_that_is_none(value: Any, status: int, code: str) -> None:
    with pytest.raises(RequestError) as error:
        text(value, "inputs", 100)
    assert (error.value.status, error.value.code, error.value.param) == (status, code, "inputs")


def test_control_characters_are_text() -> None:
    assert text("a\0\x07b", "inputs", 100) == "a\0\x07b"
