"""A data set for fine-tuning: read with its line numbers, checked, split the same way every time, cut into tokens."""
