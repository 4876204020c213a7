"""AWS instance types and their prices: dated data, and the loader."""
