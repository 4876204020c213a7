"""What the engine starts: the sandbox's `aws` provider. The environment must have Berth installed."""

from __future__ import annotations

import sys

from pulumi.provider.experimental.server import main

from infra.sandbox.engine import VERSION, EngineProvider


def serve() -> None:
    """Serve the provider on the port that the engine reads from stdout, until the engine ends it."""
    main(sys.argv[1:], VERSION, EngineProvider())


if __name__ == "__main__":
    serve()
