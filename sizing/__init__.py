"""Sizing: which model, in how much memory, on which machine, at what price. Pure: no network, no cloud SDK, no torch."""
