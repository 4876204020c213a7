"""The notice that EC2 gives two minutes before it takes a spot machine back, from the instance's metadata service.

"Spot Instance interruption notices", Amazon EC2 user guide: poll `spot/instance-action` every 5 seconds.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from dataclasses import dataclass

_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Notice:
    """`base`: the metadata service. `read` gives what it says of an interruption, empty where there is none."""

    base: str = "http://169.254.169.254/latest"
    every_s: float = 5.0

    @classmethod
    def here(cls) -> Notice | None:
        """On a machine of a stack; None elsewhere."""
        return cls() if os.environ.get("BERTH_INSTANCE") else None

    def read(self) -> str:
        try:
            token = self._ask("api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT")
            return self._ask("meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token}, "GET").strip()
        except (urllib.error.URLError, OSError):  # 404 where there is no notice, nothing where there is no service
            return ""

    def _ask(self, path: str, headers: dict[str, str], method: str) -> str:
        request = urllib.request.Request(f"{self.base}/{path}", headers=headers, method=method)  # noqa: S310 (http)
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            return str(answer.read().decode("utf-8", "replace"))
