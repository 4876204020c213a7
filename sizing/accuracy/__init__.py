"""How right the estimates are: published measurements against what Berth says for the same situation."""
