"""How many tokens a text has: by the model's own tokenizer where it is at hand, else by a rule that is said aloud."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from model_runtime.errors import ModelError
from sizing.training_plan.dataset import CHARACTERS_PER_TOKEN

Count = Callable[[Sequence[str]], list[int]]
BINS = 10


@dataclass(frozen=True, slots=True)
class Counter:
    """`count` gives the tokens of each text, special tokens included; `how` says by what."""

    count: Count
    how: str
    exact: bool


def counter(folder: Path | None) -> Counter:
    """Counts with the tokenizer in `folder`; with four characters a token where there is none that can be read here."""
    if folder is not None and (folder / "tokenizer.json").is_file() and find_spec("tokenizers"):
        return _fast(folder)
    if folder is not None and (folder / "tokenizer_config.json").is_file() and find_spec("transformers"):
        return _slow(folder)
    why = "no folder with its tokenizer was given" if folder is None else f"{folder} has no tokenizer that is read here"
    return Counter(_by_characters, f"{CHARACTERS_PER_TOKEN:g} characters a token, an assumption: {why}", exact=False)


def _by_characters(texts: Sequence[str]) -> list[int]:
    return [math.ceil(len(text) / CHARACTERS_PER_TOKEN) for text in texts]


def _fast(folder: Path) -> Counter:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises Exception itself
        raise ModelError(f"{folder / 'tokenizer.json'} cannot be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(encoded.ids) for encoded in tokenizer.encode_batch(list(texts))]

    return Counter(count, "the model's own tokenizer", exact=True)


def _slow(folder: Path) -> Counter:
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: the tokenizer cannot be read: {str(error).splitlines()[0]}") from error

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]]

    return Counter(count, "the model's own tokenizer", exact=True)


def histogram(values: Sequence[int], window: int | None) -> list[dict[str, Any]]:
    """Equal bins from 0 to the window (to the longest where there is none); what is longer stands in a last bin.

    [{"from": 0, "to": 51, "count": 7}, …]: both ends belong to a bin; the last bin's `to` is None where it is open.
    """
    top = max(1, window or max(values))
    width = max(1, math.ceil(top / BINS))
    bins: list[dict[str, Any]] = [
        {"from": low, "to": min(low + width - 1, top), "count": 0} for low in range(1, top + 1, width)
    ]
    over = 0
    for value in values:
        if value > top:
            over += 1
        else:
            bins[(max(value, 1) - 1) // width]["count"] += 1
    if window is not None:
        bins.append({"from": top + 1, "to": None, "count": over})
    return bins


def percentile(ordered: Sequence[int], share: float) -> int:
    """The smallest value that `share` of the values do not exceed (nearest rank); `ordered` ascends."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
