"""How far long work is: lines for a log, one a tenth of a download, nothing of a small one; bars on a terminal."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.progress import SHARES, Lines, downloading, size


def test_a_stage_and_a_note_are_a_line_each() -> None:
    said: list[str] = []
    lines = Lines(said.append)
    lines.begin("warming up")
    lines.begin("4 clients at once", 96)
    for _ in range(96):
        lines.advance()
    lines.note("  4 clients: 12 tokens/s")
    assert said == ["warming up", "4 clients at once (96 requests)", "  4 clients: 12 tokens/s"]


@given(st.lists(st.integers(1, 1 << 33), min_size=1, max_size=60))
def test_a_download_is_told_at_most_once_a_tenth_and_in_order(parts: list[int]) -> None:
    said: list[str] = []
    told = downloading(Lines(said.append), "s3://b/m", least=0)
    there = 0
    for part in parts:
        there += part
        told(there, sum(parts))
    assert said[0] == f"fetching and checking s3://b/m ({size(sum(parts))})" or sum(parts) == 1
    shares = [int(line.split(": ")[1].split(" %")[0]) for line in said[1:]]
    assert shares == sorted(set(shares))
    assert len(shares) < SHARES
    assert all(0 < share < 100 for share in shares)


def test_of_a_small_download_nobody_is_told() -> None:
    said: list[str] = []
    told = downloading(Lines(said.append), "s3://b/m")
    told(1 << 20, 2 << 20)
    told(2 << 20, 2 << 20)
    assert said == []


def test_on_a_terminal_each_stage_is_a_bar_and_notes_stand_above() -> None:
    rich = pytest.importorskip("rich.console")
    from berth.show.progress import drawn

    out = io.StringIO()
    with drawn(rich.Console(file=out, force_terminal=True, width=100, color_system=None, _environ={})) as told:
        told.begin("warming [up]")
        told.begin("2 clients at once", 8)
        for _ in range(8):
            told.advance()
        told.note("  2 clients: 12 tokens/s [p90]")
        told.begin("fetching m", 3 << 30, "bytes")
        told.advance(3 << 29)
    shown = out.getvalue()
    assert "warming [up]" in shown
    assert "8/8" in shown
    assert "  2 clients: 12 tokens/s [p90]" in shown
    assert "1.5 GiB of 3.0 GiB" in shown
