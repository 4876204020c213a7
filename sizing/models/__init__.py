"""Facts of open models: the catalogue, and how to read a model that is not in it."""
