"""Errors that are told to a person in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class ModelError(Exception):
    """What was given or found, what is allowed, what to do: a model that cannot be loaded, a bundle that is broken.

    `berth` shows it as one line with exit code 2; on a machine it is the line in the log that ends the start.
    """


@contextmanager
def in_one_line(*also: type[Exception]) -> Iterator[None]:
    """Turn a `ModelError`, and `also` others, into the `UserError` with which a command ends."""
    from sizing.errors import UserError

    kinds: tuple[type[Exception], ...] = (ModelError, *also)
    try:
        yield
    except kinds as error:
        raise UserError(str(error)) from error


def first_line(error: Exception) -> str:
    """What an error of a library says, as one line of at most 300 characters; its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
