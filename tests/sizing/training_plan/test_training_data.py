"""`--data`: numbers, files of every kind, and files that are broken; and what lengths are taken from them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizing.errors import UserError
from sizing.models.catalogue import load_catalogue
from sizing.training_plan.dataset import read_data
from sizing.training_plan.lengths import SAMPLE, Lengths, lengths_of
from sizing.training_plan.parquet import row_count

T5, LLAMA = "google/flan-t5-xl", "meta-llama/Llama-2-7b-hf"


@pytest.mark.parametrize(
    ("text", "examples"),
    [("15000", 15_000), ("15,000", 15_000), ("15_000", 15_000), ("15k", 15_000), (" 2M ", 2_000_000)],
)
def test_a_number_is_a_number_of_examples(text: str, examples: int) -> None:
    assert read_data(text).examples == examples
    assert read_data(text).sample == ()


def lines(path: Path, rows: list[object]) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return str(path)


def test_json_lines_are_counted_and_measured_by_four_characters_a_token(tmp_path: Path) -> None:
    rows = [{"prompt": "x" * 400, "completion": "y" * 41}] * 3
    read = read_data(lines(tmp_path / "a.jsonl", rows))
    assert read.examples == 3
    assert set(read.sample) == {(100, 11)}
    assert "'prompt' as input, 'completion' as answer" in read.notes[0]
    assert "4 characters a token" in read.notes[0]


def test_a_tokenizer_counts_instead(tmp_path: Path) -> None:
    read = read_data(lines(tmp_path / "a.jsonl", [{"text": "one two three"}]), lambda text: len(text.split()))
    assert read.sample == ((3, 0),)


def test_chats_count_the_assistant_s_turns_as_answers(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "a" * 40}, {"role": "assistant", "content": "b" * 80}]
    assert read_data(lines(tmp_path / "a.jsonl", [{"messages": chat}])).sample == ((10, 20),)


def test_dolly_s_context_belongs_to_the_instruction(tmp_path: Path) -> None:
    row = {"instruction": "a" * 40, "context": "b" * 40, "response": "c" * 4}
    assert read_data(lines(tmp_path / "a.jsonl", [row])).sample == ((20, 1),)


def test_unknown_names_are_taken_first_to_last_and_said(tmp_path: Path) -> None:
    read = read_data(lines(tmp_path / "a.jsonl", [{"frage": "a" * 8, "nummer": 3, "antwort": "b" * 4}]))
    assert read.sample == ((2, 1),)
    assert "'frage' as input, 'antwort' as answer" in read.notes[0]


def test_csv_tsv_and_a_json_list(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('question,answer\n"a, b\nc",d\nee,ff\n', encoding="utf-8")
    (tmp_path / "a.tsv").write_text("question\tanswer\nee\tff\n", encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps([{"question": "ee", "answer": "ff"}] * 4), encoding="utf-8")
    assert [read_data(str(tmp_path / f"a.{kind}")).examples for kind in ("csv", "tsv", "json")] == [2, 1, 4]


def test_a_large_file_is_sampled_the_same_way_each_time(tmp_path: Path) -> None:
    rows: list[object] = [{"text": "x" * (4 * n)} for n in range(1, SAMPLE * 2 + 1)]
    path = lines(tmp_path / "a.jsonl", rows)
    first, again = read_data(path), read_data(path)
    assert first == again
    assert (first.examples, len(first.sample)) == (SAMPLE * 2, SAMPLE)
    assert mean(a for a, _ in first.sample) == pytest.approx(SAMPLE, rel=0.05)
    assert f"lengths of a sample of {SAMPLE:,}" in first.notes[0]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b"", "holds no examples"),
        ("a.jsonl", b'{"a": "b"}\n{"a": \n', "line 2: no JSON"),
        ("a.jsonl", b'["a"]\n', "line 1: an example must be a JSON object, this is a list"),
        ("a.jsonl", b'{"n": 3}\n', "its first example has no text"),
        ("a.jsonl", b"\xff\xfe\x00", "no UTF-8 text"),
        ("a.json", b'[{"a": "b"},', "no JSON"),
        ("a.json", b"[1]", "example 1: must be a JSON object"),
        ("a.csv", b"a,b\n", "holds no examples"),
        ("a.xlsx", b"x", "ends in '.xlsx'"),
        ("a.parquet", b"PAR1 cut off", "cut off"),
        ("a.parquet", b"nothing of the kind", "is no Parquet file"),
    ],
)
def test_a_broken_file_is_named_with_its_place(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says):
        read_data(str(tmp_path / name))


@pytest.mark.parametrize(
    ("text", "says"),
    [("0", "data is 0"), ("12.5", "data is"), ("-3", "data is"), ("nothing-there.jsonl", "there is no file nothing-")],
)
def test_what_is_neither_number_nor_file_is_said(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_data(text)


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def parquet(rows: int) -> bytes:
    """A Parquet file's frame: FileMetaData {version, schema of two elements, num_rows, no row_groups}."""
    name = b"\x18" + varint(4) + b"text"
    schema = b"\x15\x0c\x25\x02" + name + b"\x00" + b"\x48" + varint(6) + b"schema" + b"\x15\x02\x00"
    footer = b"\x15\x04" + b"\x19\x2c" + schema + b"\x16" + varint(rows * 2) + b"\x19\x0c" + b"\x00"
    return b"PAR1" + b"\x00" * 16 + footer + struct.pack("<I", len(footer)) + b"PAR1"


@given(rows=st.integers(0, 2**40))
def test_a_parquet_file_says_how_many_rows_it_has_without_pyarrow(
    tmp_path_factory: pytest.TempPathFactory, rows: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.parquet"
    path.write_bytes(parquet(rows))
    assert row_count(path) == rows


def test_a_damaged_parquet_footer_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    good = parquet(5)
    path.write_bytes(good[:20] + b"\xff" * (len(good) - 28) + good[-8:])
    with pytest.raises(UserError, match="footer is damaged"):
        row_count(path)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=50), st.integers(1, 64))
def test_padding_grows_with_the_batch_up_to_the_longest(values: list[int], batch: int) -> None:
    lengths = Lengths(max(values), 0, tuple(sorted(values)))
    alone, few, many = (lengths.padded(b)[0] for b in (1, batch, batch + 1))
    assert alone == pytest.approx(mean(values))
    assert alone <= few * (1 + 1e-12)
    assert few <= many * (1 + 1e-12)
    assert many <= max(values) * (1 + 1e-12)


def test_a_decoder_reads_prompt_and_answer_as_one_sequence() -> None:
    sample = ((100, 20), (300, 10))
    t5, llama = load_catalogue()[T5], load_catalogue()[LLAMA]
    assert lengths_of(t5, sample, None, None, None).inputs == (100, 300)
    assert lengths_of(t5, sample, None, None, None).outputs == (10, 20)
    together = lengths_of(llama, sample, None, None, None)
    assert (together.inputs, together.output_tokens) == ((120, 310), 0)


def test_examples_longer_than_the_window_are_cut_and_said() -> None:
    llama = load_catalogue()[LLAMA]
    cut = lengths_of(llama, ((5000, 0), (10, 0)), None, None, None)
    assert cut.input_tokens == 4096
    assert any("50.0% of the examples exceed 4,096 tokens" in note for note in cut.notes)
    kept = lengths_of(llama, ((5000, 0), (10, 0)), None, None, 8192)
    assert kept.input_tokens == 5000


def test_counts_given_go_before_a_file_s() -> None:
    given_counts = lengths_of(load_catalogue()[T5], ((100, 20),), 300, 40, None)
    assert (given_counts.input_tokens, given_counts.output_tokens, given_counts.inputs) == (300, 40, ())


@pytest.mark.parametrize("counts", [(0, None, None), (None, -1, None), (None, None, 0), (10**8, None, None)])
def test_absurd_counts_are_refused(counts: tuple[int | None, int | None, int | None]) -> None:
    with pytest.raises(UserError, match="must be a whole number"):
        lengths_of(load_catalogue()[T5], (), *counts)
