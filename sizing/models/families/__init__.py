"""How each model type lays out its tensors: one builder a family, from a `config.json` to `Layout`."""
