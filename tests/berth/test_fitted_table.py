"""Tables at 80 columns: what stands in a cell is there whole."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from berth.output import table


def drawn(made: Any, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, markup=False, highlight=False).print(made)
    return out.getvalue()


def speeds() -> Any:
    columns = ("clients", "tokens/s", "±", "requests/s", "p50 s", "p90 s", "p99 s", "first token p50 s", "failed")
    made = table(*columns, right=columns)
    made.add_row("1", "34.81", "0%", "2.18", "0.455", "0.489", "0.4892", "0.0886", "0")
    return made


@pytest.mark.parametrize("width", [80, 100])
def test_headings_fold_before_any_number_is_cut(width: int) -> None:
    text = drawn(speeds(), width)
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    assert text.splitlines()[-1].split() == ["1", "34.81", "0%", "2.18", "0.455", "0.489", "0.4892", "0.0886", "0"]
    assert ("first token p50 s" in text) == (width == 100)


def test_cells_wrap_at_spaces_where_headings_give_too_little() -> None:
    made = table("Metric", "Model", "Base", "Difference", "")
    made.add_row("chrf", "0.643 [0.0678, 1.49]", "1.66 [0.887, 2.47]", "-1.02 [-1.84, -0.34]", "unclear")
    text = drawn(made, 70)
    assert "…" not in text
    for word in ("0.643", "[0.0678,", "1.49]", "-0.34]", "unclear"):
        assert word in text.split()


def test_a_long_word_of_a_cell_that_wraps_is_folded_and_not_cut() -> None:
    address = "https://www.pulumi.com/docs/install/"
    made = table("Check", "What to do", wrap=("What to do",))
    made.add_row("pulumi CLI", f"install it: {address} (`berth preview` needs none)")
    assert address in drawn(made, 40).replace("\n", "").replace(" ", "")


def test_what_fits_is_drawn_as_it_is() -> None:
    made = table("What it is called", "n", right=("n",))
    made.add_row("x", "1")
    assert drawn(made, 80).splitlines()[0].rstrip() == "What it is called   n"
