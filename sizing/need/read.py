"""Reads an answers file: one JSON object of question keys and answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from sizing.errors import UserError

_LARGEST_BYTES = 1 << 20


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = sorted({key for key, _ in pairs if [k for k, _ in pairs].count(key) > 1})
    if twice:
        raise UserError(f"{', '.join(twice)} stands there more than once")
    return dict(pairs)


def _parse(text: str, name: str) -> dict[str, Any]:
    """The JSON object in `text`; `name` says in errors where it came from."""
    try:
        document = json.loads(text, object_pairs_hook=_no_twice)
    except json.JSONDecodeError as error:
        raise UserError(
            f"answers file {name} is no JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    except ValueError:  # Python refuses to read an integer of more than 4,300 digits
        raise UserError(f"answers file {name} holds a number with too many digits") from None
    except RecursionError:
        raise UserError(f"answers file {name} is nested too deeply; it must be one flat JSON object") from None
    except UserError as error:
        raise UserError(f"answers file {name}: {error}") from None
    if not isinstance(document, dict):
        raise UserError(f'answers file {name} must hold one JSON object, such as {{"task": "summarization"}}')
    return document


def read_answers_file(path: Path) -> dict[str, Any]:
    """The keys and values of the answers file at `path`, not yet checked. Raises `UserError` if it cannot be read."""
    try:
        if path.is_file() and path.stat().st_size > _LARGEST_BYTES:
            raise UserError(f"answers file {path} is over 1 MiB; it must be one small JSON object")
        return _parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise UserError(f"answers file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"answers file {path} is not UTF-8 text") from None


def read_answers_stream(stream: TextIO) -> dict[str, Any]:
    """The same from an open stream such as stdin."""
    try:
        return _parse(stream.read(), "-")
    except UnicodeDecodeError:
        raise UserError("answers file - is not UTF-8 text") from None
