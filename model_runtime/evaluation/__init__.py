"""How good a model's answers on a test set are: predictions, metrics with their uncertainty, signs of invention."""
