"""Numbers as people read them."""

from __future__ import annotations

import pytest

from sizing.units import things


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 epochs"), (1, "1 epoch"), (1.0, "1 epoch"), (2.5, "2.5 epochs"), (1_000, "1,000 epochs")],
)
def test_one_thing_is_not_several(number: float, said: str) -> None:
    assert things(number, "epoch") == said
    assert things(2, "copy", "copies") == "2 copies"
