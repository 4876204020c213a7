"""safetensors headers: read without weights, refused in one line when they are cut or contradict themselves."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_files import Entries, header_of, write_safetensors
from safetensors.torch import save_file

from sizing.errors import UserError
from sizing.models.places import Folder, read_header
from sizing.models.stored import BITS, HEADER_LIMIT, Stored, header_length, main_dtype, parse_header, parse_json

names = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)
entries = st.dictionaries(
    names,
    st.tuples(st.sampled_from(["F32", "F16", "BF16", "I64", "U8"]), st.lists(st.integers(0, 5), max_size=3).map(tuple)),
    max_size=6,
)


def test_a_file_of_the_library_is_read_as_it_was_written(tmp_path: Path) -> None:
    saved = {"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16), "c": torch.tensor(7)}
    save_file(saved, tmp_path / "x.safetensors")

    read = {t.name: t for t in read_header(Folder(tmp_path), "x.safetensors")}

    assert {n: (t.dtype, t.shape, t.size_bytes) for n, t in read.items()} == {
        "a": ("F32", (2, 3), 24),
        "b": ("BF16", (4,), 8),
        "c": ("I64", (), 8),
    }
    assert read["c"].numel == 1
    assert main_dtype(read.values()) == "fp32"


@given(wanted=entries)
def test_any_header_comes_back(wanted: Entries) -> None:
    text, size = header_of(wanted)

    read = parse_header(text, "x", size)

    assert {t.name: (t.dtype, t.shape) for t in read} == wanted
    assert sum(t.size_bytes for t in read) == size


@given(wanted=entries, cut=st.floats(0, 1, exclude_max=True))
def test_a_cut_file_is_told_in_one_line(wanted: Entries, cut: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("cut") / "x.safetensors"
    write_safetensors(path, wanted)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * cut)])

    with pytest.raises(UserError) as told:
        read_header(Folder(path.parent), path.name)

    assert str(told.value).startswith(str(path))
    assert "\n" not in str(told.value)


@given(garbage=st.binary(max_size=200))
def test_garbage_is_told_in_one_line_or_read(garbage: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("garbage") / "x.safetensors"
    path.write_bytes(garbage)

    with pytest.raises(UserError) as told:
        read_header(Folder(path.parent), path.name)

    assert "\n" not in str(told.value)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "a", "__metadata__"]), inner, max_size=4)
)))  # fmt: skip
def test_any_json_is_a_header_or_one_line(value: Any) -> None:
    try:
        tensors = parse_header(json.dumps(value).encode(), "x")
    except UserError as told:
        assert "\n" not in str(told)
    else:
        assert all(isinstance(t, Stored) for t in tensors)


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"a": GOOD, "b": GOOD}, "'b' starts at byte 0 of the data and overlaps the tensor before it"),
        ({"a": GOOD, "b": GOOD | {"data_offsets": [12, 20]}}, "'b' starts at byte 12 of the data and leaves a hole"),
        ({"a": GOOD | {"data_offsets": [8, 16]}}, "'a' starts at byte 8 of the data and leaves a hole"),
        ({"a": GOOD | {"data_offsets": [8, 0]}}, "8 bytes, but its offsets 8..0 hold -8"),
        ({"a": GOOD | {"data_offsets": [0, 12]}}, "'a' is F32 of shape [2], 8 bytes, but its offsets 0..12 hold 12"),
        ({"a": GOOD | {"data_offsets": [0]}}, "'a' has data offsets that are not two whole numbers"),
        ({"a": GOOD | {"data_offsets": [0, 1 << 64]}}, "'a' has data offsets that are not two whole numbers"),
        ({"a": GOOD | {"shape": [2.0]}}, "'a' has a shape that is not a list of whole numbers"),
        ({"a": GOOD | {"shape": [-2]}}, "'a' has a shape that is not a list of whole numbers"),
        ({"a": GOOD | {"shape": "2"}}, "'a' has a shape that is not a list of whole numbers"),
        ({"a": GOOD | {"dtype": "F33"}}, "'a' has dtype 'F33'; known: BF16"),
        ({"a": GOOD | {"dtype": None}}, "'a' has dtype 'None'"),
        ({"a": 3}, "the entry of 'a' is not an object"),
    ],
)
def test_a_header_that_contradicts_itself_names_the_tensor(header: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as told:
        parse_header(json.dumps(header).encode(), "x.safetensors")

    assert said in str(told.value)


def test_a_tensor_that_is_there_twice_is_named() -> None:
    one = '"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}'

    with pytest.raises(UserError, match="'a' is there twice"):
        parse_header(f"{{{one}, {one}}}".encode(), "x")


@pytest.mark.parametrize(
    ("first", "size", "said"),
    [
        (b"", None, "0 bytes long"),
        (b"1234", None, "4 bytes long"),
        (struct.pack("<Q", 0), None, "says its header is 0 bytes"),
        (struct.pack("<Q", HEADER_LIMIT + 1), None, "safetensors allows 2 to 100,000,000"),
        (struct.pack("<Q", 1 << 63), None, "9,223,372,036,854,775,808 bytes"),
        (struct.pack("<Q", 1000), 500, "says its header is 1,000 bytes, but the file has 500"),
    ],
)
def test_a_header_length_that_lies_is_told(first: bytes, size: int | None, said: str) -> None:
    with pytest.raises(UserError) as told:
        header_length(first, "x", size)

    assert said in str(told.value)


def test_data_longer_than_promised_is_told() -> None:
    text, size = header_of({"a": ("F32", (2,))})

    with pytest.raises(UserError, match="longer than its header says"):
        parse_header(text, "x", size + 1)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, '{"a": 1, "a": 2}', "[1]", "3", "", "{", b"\xff\xfe\x00"])
def test_what_is_no_json_object_is_told(text: str | bytes) -> None:
    with pytest.raises(UserError, match=r"^x"):
        parse_json(text, "x")


def test_half_bytes_are_counted() -> None:
    assert BITS["F4"] == 4
    read = parse_header(b'{"a": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}', "x", 2)
    assert read[0].size_bytes == 2
