"""A stack's bundle and model: written from its settings, put into the artifact bucket, fetched back and checked."""
