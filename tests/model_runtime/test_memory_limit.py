"""Real memory that runs out: a process with a limit splits its batch, answers what fits, and lives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from model_runtime.tiny import build

PROGRAM = """
import json, resource, sys
from model_runtime.generate import Generator
from model_runtime.handler.service import Service
from model_runtime.handler.settings import ServingSettings
from model_runtime.load import LoadOptions, load

settings = ServingSettings("m", batch_size=48, max_output_tokens=4)
generator = Generator(load(sys.argv[1], LoadOptions(device="cpu")), settings.limits)
service = Service(generator, settings, write=lambda _: None)
short = json.dumps({"inputs": "The ship"}).encode()
long = json.dumps({"inputs": "x " * 150}).encode()
before = service.answer([short])[0].body
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[2]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
replies = service.answer([short, *[long] * 46, short])
after = service.answer([short])[0].body
print(json.dumps({
    "statuses": [r.status for r in replies], "splits": generator.memory_splits,
    "same": [replies[0].body == before, replies[-1].body == before, after == before],
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("spare_mib", [100, 25])
def test_a_process_that_may_take_no_more_memory_splits_its_batch_and_lives(tmp_path: Path, spare_mib: int) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("RLIMIT_AS limits a process on Linux")
    folder = build("llama", tmp_path / "m", hidden_size=256, layers=2, context_window=512)
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(folder), str(spare_mib)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    seen = json.loads(ran.stdout.splitlines()[-1])
    assert seen["splits"] >= 1
    assert set(seen["statuses"]) <= {200, 503}
    assert seen["statuses"][0] == seen["statuses"][-1] == 200
    assert seen["same"] == [True, True, True]
    if spare_mib == 100:
        assert set(seen["statuses"]) == {200}
