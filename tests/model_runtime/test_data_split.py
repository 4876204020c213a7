"""The split: deterministic, of the right sizes, copies of a row on one side, kept in a file that knows its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.data.examples import Example, normalised
from model_runtime.data.read import Table, read_table
from model_runtime.data.split import NAMES, make_split, read_split, write_split
from model_runtime.errors import ModelError


def table_of(examples: list[Example]) -> Table:
    return Table("d.jsonl", Path("d.jsonl"), "seq2seq", tuple(examples), (), len(examples), "0" * 64, ())


def numbered(count: int, form: Any = "seq2seq") -> list[Example]:
    return [Example(i + 1, form, f"question {i}", f"answer {i % 3}") for i in range(count)]


@given(
    texts=st.lists(st.text("abAB ,", min_size=1, max_size=4), min_size=1, max_size=60),
    shares=st.tuples(st.floats(0, 0.45), st.floats(0, 0.45)),
    seed=st.integers(0, 9),
)
def test_every_row_is_in_one_part_and_its_copies_beside_it(
    texts: list[str], shares: tuple[float, float], seed: int
) -> None:
    examples = [Example(i + 1, "seq2seq", text, "x") for i, text in enumerate(texts)]
    split = make_split(table_of(examples), seed=seed, validation_share=shares[0], test_share=shares[1])
    lines = [n for name in NAMES for n in split.lines[name]]
    assert sorted(lines) == [e.line for e in examples]
    where = {e.line: name for name in NAMES for e in split.of(name, examples)}
    for one in examples:
        for other in examples:
            if normalised(one.input) == normalised(other.input):
                assert where[one.line] == where[other.line]


def test_sizes_are_the_shares_asked() -> None:
    split = make_split(table_of(numbered(1000)), validation_share=0.05, test_share=0.1)
    assert {n: len(split.lines[n]) for n in NAMES} == {"train": 850, "validation": 50, "test": 100}


def test_a_share_gets_a_row_even_of_little_data() -> None:
    split = make_split(table_of(numbered(5)), validation_share=0.05, test_share=0.05)
    assert {n: len(split.lines[n]) for n in NAMES} == {"train": 3, "validation": 1, "test": 1}
    assert make_split(table_of(numbered(5)), validation_share=0, test_share=0).lines["train"] == (1, 2, 3, 4, 5)


def test_the_order_of_rows_does_not_matter_and_the_seed_does() -> None:
    examples = numbered(200)
    moved = [Example(len(examples) + 1 - e.line, e.form, e.input, e.target) for e in examples]

    def tested(rows: list[Example], seed: int = 0) -> set[str]:
        return {e.input for e in make_split(table_of(rows), seed=seed).of("test", rows)}

    assert tested(examples) == tested(moved)
    assert tested(examples) != tested(examples, seed=1)


def test_classes_are_split_one_by_one() -> None:
    examples = [Example(i + 1, "classification", f"t{i}", "rare" if i < 10 else "usual") for i in range(500)]
    split = make_split(table_of(examples), validation_share=0.1, test_share=0.2)
    rare = {name: sum(e.target == "rare" for e in split.of(name, examples)) for name in NAMES}
    assert rare == {"train": 7, "validation": 1, "test": 2}


def test_a_split_kept_in_a_file_comes_back_and_is_refused_for_other_data(tmp_path: Path) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text("".join(json.dumps({"input": f"q{i}", "target": "a"}) + "\n" for i in range(50)))
    table = read_table(str(data))
    split = make_split(table, seed=3)
    path = write_split(split, tmp_path / "split.json")
    assert read_split(path, table) == split
    assert path.stat().st_size < 600
    data.write_text(data.read_text() + '{"input": "more", "target": "a"}\n')
    with pytest.raises(ModelError, match="the data changed since"):
        read_split(path, read_table(str(data)))
    path.write_text("{}")
    with pytest.raises(ModelError, match="is no split"):
        read_split(path, table)


@pytest.mark.parametrize(("validation", "test"), [(1.0, 0.0), (-0.1, 0.1), (0.5, 0.5)])
def test_shares_that_make_no_sense(validation: float, test: float) -> None:
    with pytest.raises(ModelError, match=r"share|leave nothing"):
        make_split(table_of(numbered(9)), validation_share=validation, test_share=test)
