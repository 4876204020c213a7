"""Sizing: which model, in how much memory, on which machine, at what price. Pure: no network, cloud SDK or torch."""
