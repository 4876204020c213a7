"""The training node's script and the watchdog agree: unit, options, moments, and a Python with nothing installed."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from infra.endings import DEAD_MAN_AFTER_EXPIRY, GONE_AFTER_EXPIRY, SCHEDULE_AFTER_EXPIRY
from model_runtime.watch.deliver import ARTIFACT
from model_runtime.watch.limits import Limits
from model_runtime.watchdog import _parser

ROOT = Path(__file__).parents[2]
SCRIPT = (ROOT / "tests" / "infra" / "golden" / "training.user-data.sh").read_text(encoding="utf-8")
IN_THE_IMAGE = {"deliver.py"}
"""Runs in the training image; everything else runs on the host."""


def unit(name: str) -> str:
    return SCRIPT.split(f"cat > /etc/systemd/system/{name}.service <<'BERTH_UNIT'\n")[1].split("\nBERTH_UNIT\n")[0]


def test_the_unit_starts_a_watchdog_with_options_that_it_knows() -> None:
    words = re.search(r"^ExecStart=/usr/bin/python3 -m model_runtime.watchdog (.*)$", unit("berth-watchdog"), re.M)
    assert words is not None
    environment = {"BERTH_EXPIRES_AT": "2026-11-24T08:00:00Z", "BERTH_BUCKET": "b", "BERTH_OUTPUT": "output/training"}
    given = _parser(environment).parse_args(words[1].split())
    assert (given.unit, given.container, given.uri) == ("berth-train", "berth", "s3://b/output/training")
    assert given.courier[0] == "/usr/bin/docker" and given.courier[-1] == "python" and "--interactive" in given.courier
    assert all(f"{name}=" in SCRIPT for name in environment)


def test_the_watchdog_is_kept_alive_and_its_state_outlives_it() -> None:
    lines = unit("berth-watchdog").splitlines()
    for line in ("Restart=always", "Type=notify", "RuntimeDirectoryPreserve=yes", "StartLimitIntervalSec=0"):
        assert line in lines
    hung = next(int(line.split("=")[1]) for line in lines if line.startswith("WatchdogSec="))
    assert hung < Limits().margin_s


def test_the_job_has_its_grace_and_a_machine_that_ends_is_not_started_again() -> None:
    lines = unit("berth-train").splitlines()
    stop = next(int(line.split()[-2]) for line in lines if line.startswith("ExecStop="))
    timeout = next(int(line.split("=")[1]) for line in lines if line.startswith("TimeoutStopSec="))
    assert Limits().grace_s < stop < timeout
    assert "RestartPreventExitStatus=2 75" in lines


def test_the_dead_man_s_switch_comes_first_and_is_in_time() -> None:
    assert DEAD_MAN_AFTER_EXPIRY.total_seconds() == Limits().dead_man_s
    forced = re.search(r"JobTimeoutSec=(\d+)", SCRIPT)
    assert forced is not None
    assert Limits().dead_man_s + int(forced[1]) <= 600
    switch = SCRIPT.index("systemd-run --unit=berth-deadman")
    assert switch < SCRIPT.index("/opt/berth/fetch.py <<") and switch < SCRIPT.index("docker pull")
    assert "EXIT\n" in SCRIPT.split("trap ")[1].split("\n")[0] + "\n"


def test_each_layer_has_time_for_the_one_before_it() -> None:
    """Watchdog, systemd's switch, the cloud's schedule, the promise; EventBridge Scheduler is exact to a minute."""
    limits = Limits()
    forced = timedelta(seconds=limits.dead_man_s + 120)
    watchdog = timedelta(seconds=limits.margin_s + limits.report_s)
    assert watchdog < DEAD_MAN_AFTER_EXPIRY < SCHEDULE_AFTER_EXPIRY
    assert SCHEDULE_AFTER_EXPIRY + timedelta(minutes=1) <= GONE_AFTER_EXPIRY
    assert forced <= GONE_AFTER_EXPIRY


def test_the_finish_leaves_the_end_to_a_watchdog_that_lives(tmp_path: Path) -> None:
    finish = SCRIPT.split("<<'BERTH_FINISH'\n")[1].split("\nBERTH_FINISH\n", maxsplit=1)[0]
    (tmp_path / "finish").write_text(finish, encoding="utf-8")
    asked = tmp_path / "asked"
    for name, script in (
        ("aws", "exit 1"),
        ("sleep", "exit 0"),
        (
            "systemctl",
            f'[ "$1" = is-active ] && exit "$WATCHDOG"\n[ "$1" = show ] && echo "$RESTARTS"\necho "$1" >> {asked}',
        ),
    ):  # fmt: skip
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    for watchdog, result, status, restarts, ends in (
        (0, "success", "0", 0, False),
        (3, "success", "0", 0, True),
        (3, "exit-code", "1", 1, False),
        (3, "exit-code", "1", 3, True),
        (3, "exit-code", "75", 0, True),
    ):
        asked.write_text("")
        environment = {
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "WATCHDOG": str(watchdog),
            "RESTARTS": str(restarts),
            "SERVICE_RESULT": result,
            "EXIT_STATUS": status,
            "BERTH_BUCKET": "b",
            "BERTH_OUTPUT": "o",
        }
        subprocess.run(["bash", str(tmp_path / "finish")], env=environment, check=True)
        assert ("poweroff" in asked.read_text()) is ends


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    text = re.sub(r"^ExecStart=.*$", "ExecStart=/bin/true", unit("berth-watchdog"), flags=re.M)
    text = re.sub(r"^(After|EnvironmentFile)=.*\n", "", text, flags=re.M)
    (tmp_path / "berth-watchdog.service").write_text(text + "\n", encoding="utf-8")
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", str(tmp_path / "berth-watchdog.service")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "berth-watchdog.service:" not in checked.stderr, checked.stderr


def host_files() -> list[Path]:
    package = ROOT / "model_runtime"
    parts = [p for p in (package / "watch").glob("*.py") if p.name not in IN_THE_IMAGE]
    return [*parts, package / "watchdog.py", package / "errors.py", package / "__init__.py"]


def test_the_host_s_part_is_python_3_10_and_needs_nothing_installed(tmp_path: Path) -> None:
    for file in host_files():
        source = file.read_text(encoding="utf-8")
        ast.parse(source, feature_version=(3, 10))
        for later in ("datetime import UTC", "StrEnum", "tomllib", "typing import Self", "ExceptionGroup"):
            assert later not in source, f"{file.name}: Python 3.11's {later}"
        target = tmp_path / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-S", "-m", "model_runtime.watchdog", "--help"],
        cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0 and "--expires-at" in ran.stdout, ran.stderr


def test_the_artifact_s_folder_is_the_run_s_own() -> None:
    assert f'FOLDER = "{ARTIFACT}"' in (ROOT / "model_runtime" / "training" / "finish.py").read_text(encoding="utf-8")
