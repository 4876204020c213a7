"""What the engine starts: the sandbox's `aws` provider. The environment must have Berth installed."""

from __future__ import annotations

import sys

from pulumi.provider.experimental.server import main

from infra.sandbox.engine import VERSION, EngineProvider

if __name__ == "__main__":
    main(sys.argv[1:], VERSION, EngineProvider())
