"""Step 0: is a large language model needed at all? Questions, and a verdict that follows from the answers alone."""

from __future__ import annotations
