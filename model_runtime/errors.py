"""Errors that are told to a person in one line."""

from __future__ import annotations


class ModelError(Exception):
    """What was given or found, what is allowed, what to do: a model that cannot be loaded, a bundle that is broken.

    `berth` shows it as one line with exit code 2; on a machine it is the line in the log that ends the start.
    """
