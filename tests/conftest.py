"""What every test may count on: no network, no colours, one width, an empty cache of its own, no AWS account."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Two cores are shared by the test processes, so a slow example says nothing about the code.
settings.register_profile("berth", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("berth"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "berth")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every command that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

WIDTH = 100

_TOGETHER = (
    "tests/model_runtime/test_fuzz.py", "tests/model_runtime/test_lmi_engine.py",
    "tests/model_runtime/test_finetune_nodes.py",
)  # fmt: skip
"""Files whose slow tests share a server or jars, or start several machines of several processes each: all of a file run
in one worker, in their order."""

_ENVIRONMENT = {
    "NO_COLOR": "1",
    "COLUMNS": str(WIDTH),
    "TERM": "dumb",
    # boto3 finds credentials and a region without reading a person's files or asking the instance's metadata.
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    # transformers and huggingface_hub fail at once instead of trying a hub that cannot be reached.
    "HF_HUB_OFFLINE": "1",
}
os.environ.update(_ENVIRONMENT)
for _name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "FORCE_COLOR", "CLICOLOR_FORCE", "LINES"):
    os.environ.pop(_name, None)


@pytest.fixture(autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Berth keeps what it refreshes: empty at the start of every test."""
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("BERTH_CACHE_DIR", str(path))
    return path


@dataclass(frozen=True)
class Ran:
    """What a run of the command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_berth(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Runs `berth ARGUMENTS…` in this process: `run_berth("size", "google/flan-t5-xl", "--json", stdin="")`."""
    from berth.cli import main

    def run(*arguments: Any, stdin: str = "") -> Ran:
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Ran(int(end.value.code or 0), captured.out, captured.err)

    return run


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadscope` tests are handed out one by one, but for those that belong together.

    The marks of `--dist loadgroup` do nothing with pytest-xdist 3.8 under pytest 9.2: it changes a test's id in vain.
    """
    if config.getoption("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", maxsplit=1)[0]
            return file if file in _TOGETHER else nodeid

    return Scheduling(config, log)
