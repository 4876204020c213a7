"""Reading data: every form in every kind of file, line numbers that a person finds, bad rows that are told."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_runtime.data.dataset import read_dataset
from model_runtime.data.examples import Message, column_names, normalised
from model_runtime.data.read import read_table
from model_runtime.errors import ModelError

PAIRS = [{"input": f"question {i}, with\na line", "target": f"answer {i}"} for i in range(4)]
CHAT = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}]
ROWS: dict[str, list[dict[str, Any]]] = {
    "seq2seq": PAIRS,
    "causal": [{"text": "one"}, {"text": "two"}],
    "chat": CHAT,
    "classification": [{"text": "fine", "label": "good"}, {"text": "bad", "label": "poor"}],
}


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return path


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        return jsonl(path, rows)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("form", list(ROWS))
def test_every_form_reads_alike_from_every_kind_of_file(tmp_path: Path, form: str, suffix: str) -> None:
    if form == "chat" and suffix in (".csv", ".tsv"):
        pytest.skip("a CSV holds no lists")
    found = read_table(str(table(tmp_path / f"data{suffix}", ROWS[form])))
    assert (found.form, found.rows, found.problems) == (form, len(ROWS[form]), ())
    expected = read_table(str(table(tmp_path / "same.jsonl", ROWS[form])))
    assert [(e.input, e.target, e.messages) for e in found.examples] == [
        (e.input, e.target, e.messages) for e in expected.examples
    ]


def test_a_line_number_is_where_the_row_begins(tmp_path: Path) -> None:
    found = read_table(str(table(tmp_path / "data.csv", PAIRS)))
    assert [e.line for e in found.examples] == [2, 4, 6, 8]  # the header is line 1, every row has a line break in it


def test_bad_rows_are_told_with_their_lines_and_the_good_ones_kept(tmp_path: Path) -> None:
    rows: list[Any] = [
        PAIRS[0], "", "{no json", "[1]", {"input": "a"}, {"input": " ", "target": "b"}, {"input": 3, "target": "b"},
        {"input": "\ud800", "target": "b"}, PAIRS[1],
    ]  # fmt: skip
    path = jsonl(tmp_path / "data.jsonl", rows)
    path.write_bytes(path.read_bytes() + b'{"input": "\xff", "target": "x"}\n')
    found = read_table(str(path))
    assert [e.line for e in found.examples] == [1, 9]
    assert [(p.line, p.kind) for p in found.problems] == [
        (3, "json"), (4, "json"), (5, "missing"), (6, "empty"), (7, "type"), (8, "unicode"), (10, "encoding"),
    ]  # fmt: skip
    assert found.rows == 9


@pytest.mark.parametrize(
    ("messages", "kind"),
    [
        ("hi", "type"),
        ([], "type"),
        ([{"role": "user"}], "type"),
        ([{"role": "robot", "content": "x"}], "role"),
        ([{"role": "user", "content": "x"}], "role"),
        ([{"role": "assistant", "content": "x"}], "role"),
        ([{"role": "user", "content": ""}, {"role": "assistant", "content": "x"}], "empty"),
        ([{"role": "user", "content": 1}, {"role": "assistant", "content": "x"}], "type"),
    ],
)
def test_a_chat_that_teaches_nothing_is_refused(tmp_path: Path, messages: Any, kind: str) -> None:
    found = read_table(str(jsonl(tmp_path / "d.jsonl", [CHAT[0], {"messages": messages}])))
    assert [(p.line, p.kind) for p in found.problems] == [(2, kind)]
    assert found.examples[0].messages == (Message("user", "hi"), Message("assistant", "hello"))
    assert (found.examples[0].asked, found.examples[0].answer) == ("user: hi", "hello")


def test_columns_of_other_names(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", [{"article": "a", "summary": "b"}])
    with pytest.raises(ModelError, match=r"has the columns article, summary; .*NAME=COLUMN"):
        read_table(str(path))
    found = read_table(str(path), names=column_names(["input=article", "target=summary"]))
    assert (found.examples[0].input, found.examples[0].target) == ("a", "b")
    with pytest.raises(ModelError, match="not NAME=COLUMN"):
        column_names(["question=article"])


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("d.jsonl", "", "holds no rows"),
        ("d.jsonl", '[{"text": "a"}]\n', "is one JSON array"),
        ("d.jsonl", '[\n{"text": "a"}\n]\n', "is one JSON array"),
        ("d.csv", "text,text\na,b\n", "stands twice"),
        ("d.csv", 'text\n"a\n', "is no CSV"),
        ("d.parquet", "no parquet", "cannot be read as Parquet"),
        ("d.txt", "a", "no data file by its name"),
        ("d.jsonl", "{no\n", "no row can be read; line 1"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=says) as error:
        read_table(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_a_folder_with_its_parts(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", PAIRS)
    table(tmp_path / "dev.parquet", PAIRS[:2])
    jsonl(tmp_path / "test.jsonl", PAIRS[:1])
    (tmp_path / "README.txt").write_text("not data")
    (tmp_path / "manifest.json").write_text("{}")
    found = read_dataset(str(tmp_path))
    assert {name: len(part) for name, part in found.parts.items()} == {"train": 4, "validation": 2, "test": 1}
    jsonl(tmp_path / "valid.jsonl", PAIRS[:1])
    with pytest.raises(ModelError, match="two files for validation"):
        read_dataset(str(tmp_path))


def test_normalised_text_forgets_case_punctuation_and_space() -> None:
    assert normalised("  Hello,\tWORLD! ") == normalised("hello world")
    assert normalised("Straße") == normalised("STRASSE")
    assert normalised("?!") != normalised("!!"), "text of punctuation alone keeps it"


@pytest.fixture
def s3() -> Iterator[Any]:
    from moto import mock_aws

    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="data-of-a-test")
        yield client


def test_a_file_in_s3_is_fetched_once_for_each_version(s3: Any, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", PAIRS)
    s3.upload_file(str(path), "data-of-a-test", "sets/rows.jsonl")
    uri = "s3://data-of-a-test/sets/rows.jsonl"
    first = read_table(uri, client=s3, cache=tmp_path / "cache")
    again = read_table(uri, client=s3, cache=tmp_path / "cache")
    assert (first.sha256, first.path, first.location) == (again.sha256, again.path, uri)
    jsonl(path, PAIRS[:2])
    s3.upload_file(str(path), "data-of-a-test", "sets/rows.jsonl")
    assert read_table(uri, client=s3, cache=tmp_path / "cache").rows == 2
    with pytest.raises(ModelError, match="cannot be read"):
        read_table("s3://data-of-a-test/none.jsonl", client=s3)
