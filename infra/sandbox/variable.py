"""The environment variable by which the sandbox's provider finds its local AWS."""

from __future__ import annotations

ENDPOINT = "BERTH_SANDBOX_ENDPOINT"
"""Names the local AWS; otherwise it is the one of `berth sandbox up`."""
