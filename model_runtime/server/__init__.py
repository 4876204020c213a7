"""A local server over the handler: the same routes, the same batching and limits, on a laptop as on a host."""
