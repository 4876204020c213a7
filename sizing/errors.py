"""The one kind of error that is shown to a person as a single line."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake of input or data: what was given, what is allowed, what to do. Shown as one line, exit code 2."""


def unknown(kind: str, given: str, known: Iterable[str], hint: str = "") -> UserError:
    """A `UserError` for a name that is not known, with the nearest known names offered."""
    names = sorted(known)
    near = get_close_matches(given.lower(), [n.lower() for n in names], n=3, cutoff=0.5)
    nearest = [n for n in names if n.lower() in near]
    if nearest:
        offer = f"did you mean {', '.join(nearest)}?"
    elif len(names) <= 12:
        offer = f"known: {', '.join(names)}"
    else:
        offer = ""
    parts = [f"unknown {kind} '{given}'", offer, hint]
    return UserError("; ".join(p for p in parts if p))
