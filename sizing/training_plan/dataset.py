"""`--data`: a number of examples, or a file of them, whose lengths are read from a sample."""

from __future__ import annotations

import csv
import json
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sizing.errors import UserError
from sizing.training_plan.lengths import SAMPLE
from sizing.training_plan.parquet import row_count

CHARACTERS_PER_TOKEN = 4.0
"""English text in the usual vocabularies, as a rule of thumb (OpenAI, "What are tokens and how to count them")."""
_INPUTS = ("messages", "conversations", "prompt", "instruction", "question", "input", "dialogue", "document", "article",
           "source", "context", "sentence", "text")  # fmt: skip
_OUTPUTS = ("completion", "response", "output", "answer", "summary", "highlights", "target", "translation", "label")
_NUMBER = re.compile(r"^\s*(\d[\d_,]*)\s*([kKmM]?)\s*$")
_ASSISTANT = ("assistant", "gpt", "model")
Count = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Data:
    """`sample`: (input, output) tokens of examples, empty for a mere number."""

    examples: int
    sample: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()


def read_data(text: str, count_tokens: Count | None = None) -> Data:
    """`text` as a number (`15000`, `15,000`, `15k`) or as the path of a .jsonl, .json, .csv, .tsv or .parquet file.

    `count_tokens` counts a text's tokens; without it four characters are one token. Raises `UserError` for what is
    neither, an empty file, or a line that is no example, with its place.
    """
    number = _NUMBER.match(text)
    if number:
        digits = int(number[1].replace(",", "").replace("_", ""))
        examples = digits * {"": 1, "k": 1000, "m": 1_000_000}[number[2].lower()]
        if examples < 1:
            raise UserError(f"data is {text}; at least one example is needed")
        return Data(examples)
    path = Path(text).expanduser()
    kind = path.suffix.lower()
    if not path.is_file():
        given = f"there is no file {text}" if kind.strip(".").isalpha() else f"data is '{text}'"
        raise UserError(f"{given}; give a number of examples, or a .jsonl, .json, .csv, .tsv or .parquet file")
    if kind == ".parquet":
        return _parquet(path, count_tokens)
    readers: dict[str, Callable[[Path], Iterator[dict[str, Any]]]] = {
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".json": _json,
        ".csv": lambda p: _csv(p, ","),
        ".tsv": lambda p: _csv(p, "\t"),
    }
    if kind not in readers:
        raise UserError(f"{path} ends in '{kind}'; .jsonl, .json, .csv, .tsv and .parquet are read")
    try:
        return _summary(path, readers[kind](path), count_tokens)
    except UnicodeDecodeError:
        raise UserError(f"{path} is no UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _summary(path: Path, rows: Iterable[dict[str, Any]], count_tokens: Count | None) -> Data:
    """Rows counted; lengths of a random sample of them (reservoir sampling, always the same one)."""
    kept: list[dict[str, Any]] = []
    examples = 0
    chance = random.Random(0)  # noqa: S311 - a sample, no secret
    for row in rows:
        examples += 1
        if len(kept) < SAMPLE:
            kept.append(row)
        elif (place := chance.randrange(examples)) < SAMPLE:
            kept[place] = row
    if not examples:
        raise UserError(f"{path} holds no examples")
    first, second = _columns(path, kept[0])
    counted = count_tokens or _by_characters
    sample = tuple((_tokens(row, first, counted), _tokens(row, second, counted, answer=True)) for row in kept)
    how = (
        "its tokenizer" if count_tokens else f"{CHARACTERS_PER_TOKEN:g} characters a token (--tokenizer counts exactly)"
    )
    named = f"'{first}' as input" + (f", '{second}' as answer" if second else "")
    of = "all" if examples <= SAMPLE else f"a sample of {SAMPLE:,}"
    return Data(examples, sample, (f"{examples:,} examples in {path.name}: {named}; lengths of {of} by {how}",))


def _by_characters(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def _columns(path: Path, row: dict[str, Any]) -> tuple[str, str]:
    """The fields that hold input and answer: by their usual names, else the first and the last text."""
    lower = {name.lower(): name for name in row}
    first = next((lower[n] for n in _INPUTS if n in lower), "")
    if first.lower() in ("messages", "conversations"):
        return first, first
    second = next((lower[n] for n in _OUTPUTS if n in lower and lower[n] != first), "")
    texts = [name for name, value in row.items() if isinstance(value, str)]
    if not first:
        rest = [t for t in texts if t != second]
        if not rest:
            raise UserError(
                f"{path}: its first example has no text; fields like 'prompt' and 'completion' or 'messages' are needed"
            )
        first = rest[0]
        second = second or (rest[-1] if len(rest) > 1 else "")
    return first, second


def _tokens(row: dict[str, Any], name: str, counted: Count, *, answer: bool = False) -> int:
    if not name:
        return 0
    value = row.get(name)
    if isinstance(value, list):
        turns = [t for t in value if isinstance(t, dict)]
        return sum(
            counted(str(t.get("content", t.get("value", ""))))
            for t in turns
            if (str(t.get("role", t.get("from", ""))) in _ASSISTANT) == answer
        )
    if not answer and name.lower() == "instruction":
        # Alpaca's and Dolly's instructions come with the text they are about.
        extra = next((row[k] for k in ("input", "context") if isinstance(row.get(k), str)), "")
        return counted(str(value)) + (counted(extra) if extra else 0)
    return counted("" if value is None else str(value))


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _row(path, f"line {number}", line)


def _row(path: Path, place: str, text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, {place}: no JSON ({error.msg})") from None
    if not isinstance(row, dict):
        raise UserError(f"{path}, {place}: an example must be a JSON object, this is a {type(row).__name__}")
    return row


def _json(path: Path) -> Iterator[dict[str, Any]]:
    """A list of objects, or JSON lines under another name."""
    text = path.read_text(encoding="utf-8")
    if not text.lstrip().startswith("["):
        yield from _json_lines(path)
        return
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: no JSON ({error.msg})") from None
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path}, example {number}: must be a JSON object, this is a {type(row).__name__}")
        yield row


def _csv(path: Path, delimiter: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(1 << 24)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        try:
            for row in reader:
                yield {name: value for name, value in row.items() if name}
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}") from None


def _parquet(path: Path, count_tokens: Count | None) -> Data:
    examples = row_count(path)
    if not examples:
        raise UserError(f"{path} holds no examples")
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return Data(
            examples, (), (f"{examples:,} examples in {path.name}; their lengths need pyarrow, which is absent",)
        )
    try:
        rows = (row for batch in parquet.ParquetFile(path).iter_batches() for row in batch.to_pylist())
        return _summary(path, rows, count_tokens)
    except ArrowException as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
