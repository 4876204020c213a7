"""`berth train`: asks before it acts, survives its own death, and says in words, numbers and JSON how a run ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from rich.console import Console
from rich.live import Live

from berth.schemas import load
from berth.show.train import Drawn, Lines, next_commands, show_end
from infra.instances import ended_at
from infra.lifecycle.engine import Removal
from infra.lifecycle.final_bill import final_bill
from infra.lifecycle.follow import Look
from infra.lifecycle.interlock import Node, Verdict
from infra.lifecycle.saved import Saved
from infra.lifecycle.train_end import End
from infra.sandbox import server
from infra.stack_files import ROOT, render_project, render_stack
from infra.steps import Left
from model_runtime.artifacts import Verified

URI = "s3://bucket/output/tuning/20261124-093000"
SINCE = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
BEGUN = {
    "lines": [
        {"resource": "node-0", "item": "p4d.24xlarge (on-demand)", "usd_per_hour": "22", "as_of": "2026-07-20"},
        {"resource": "nat", "item": "NAT gateway", "usd_per_hour": "0.045", "as_of": "2024-07-01"},
    ],
    "unpriced": ["node-0: gp9 volume"],
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training stack on its own, with data."""
    (tmp_path / "stacks").mkdir()
    (tmp_path / "Pulumi.yaml").write_text(render_project(), encoding="utf-8")
    shared: dict[str, Any] = {"role": "shared", "owner": "tests", "budget_per_month": 50}
    tuning = {
        "role": "training", "owner": "tests", "budget_per_month": 100_000, "alarm_email": "tests@example.com",
        "model": "google/flan-t5-small", "instance_type": "g4dn.xlarge", "dtype": "fp32", "method": "full",
        "zones": ["use1-az1"], "dataset": "datasets/pairs", "time_to_live": "2h", "epochs": 2,
    }  # fmt: skip
    for name, values in (("shared", shared), ("tuning", tuning), ("service", {**tuning, "role": "inference"})):
        if name == "service":
            for key in ("dataset", "method", "epochs"):
                values.pop(key)
        text = render_stack("us-east-1", values, {})
        (tmp_path / "stacks" / f"Pulumi.{name}.yaml").write_text(text, encoding="utf-8")
    rows = [{"input": f"say {w} {i}", "target": w[::-1]} for i in range(12) for w in ("ship", "tide", "dawn", "berth")]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("tuning",), "give either --data"),
        (("tuning", "--data", "pairs.jsonl", "--attach"), "give either --data"),
        (("tuning", "--data", "pairs.jsonl", "--abandon"), "--abandon goes with --attach"),
        (("service", "--attach"), "has the role inference"),
        (("tuning", "--data", "pairs.jsonl", "--sandbox"), "give --yes"),
        (("tuning", "--attach", "--sandbox"), "the sandbox does not run"),
        (("tuing", "--attach", "--sandbox"), "unknown stack"),
    ],
)
def test_a_mistake_is_one_line(
    run_berth: Callable[..., Any], project: Path, arguments: tuple[str, ...], says: str
) -> None:
    ran = run_berth("train", *arguments)
    assert ran.code == 2 and says in ran.err and ran.err.count("\n") == 1


def saved(what: str) -> Saved:
    found = Verified(f"{URI}/{what}", 3, 2 << 30, (), "ab" * 32)
    if what == "artifact":
        return Saved(URI, artifact=found, checked="every byte")
    return Saved(URI, checkpoint=found, checked="every byte")


def an_end(kind: Any = "verified", what: str = "artifact", **given: Any) -> End:
    bill = given.pop("bill", final_bill(BEGUN, SINCE, SINCE + timedelta(hours=3), 2 << 30, "us-east-1"))
    values: dict[str, Any] = {"removal": Removal(()), "sentences": ("The machine halted.",), **given}
    return End("tuning", URI, Verdict(kind, "It may go.", saved(what)), bill, **values)


def test_the_final_bill_is_time_by_price_and_names_what_has_no_price(capsys: pytest.CaptureFixture[str]) -> None:
    end = an_end()
    assert end.bill is not None
    assert end.bill.usd == Decimal(3) * Decimal("22.045") and end.bill.hours == 3
    assert end.bill.kept_usd_per_month == Decimal(2) * Decimal("0.023")
    show_end(end, "")
    out = capsys.readouterr().out
    for part in ("$66.14 for 3.00 h", "Unpriced: node-0: gp9 volume", "2.00 GiB, $0.05 a month", "berth deploy"):
        assert part in out


def test_seconds_count_a_minute_at_least_and_an_end_that_is_not_known_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    short = final_bill(BEGUN, SINCE, SINCE + timedelta(seconds=5), 0, "us-east-1", sure=False)
    assert short.usd == Decimal("22.045") / 60
    show_end(End("tuning", URI, Verdict("gone", "", saved("artifact")), short), "")
    assert "this is the most" in capsys.readouterr().out
    assert final_bill(None, SINCE, SINCE, 0, "us-east-1").unpriced[0].startswith("everything")


def test_a_machine_that_was_started_again_counts_from_the_run_s_beginning_and_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    earlier = [{"at": "2026-11-24T03:00:00Z", "by": "ann", "usd": 12.5}, {"at": "2026-11-24T06:00:00Z", "by": "bob"}]
    begun = {**BEGUN, "at": "2026-11-24T07:30:00Z", "earlier": earlier}
    until = SINCE + timedelta(hours=1)
    bill = final_bill(begun, SINCE, until, 0, "us-east-1", removed=until)
    assert bill.hours == 3 and bill.usd == Decimal(3) * Decimal("22.045")
    show_end(an_end(bill=bill), "")
    out = " ".join(capsys.readouterr().out.split())
    for part in ("counted from 2026-11-24T07:30:00Z, which is the most", "not in the sum: $12.50", "bob began"):
        assert part in out
    # A machine that begins some minutes after its run's note is the first.
    soon = final_bill({**BEGUN, "at": "2026-11-24T09:20:00Z"}, SINCE, until, 0, "us-east-1", removed=until)
    assert (soon.since, soon.notes) == (SINCE, ())


def test_ec2_s_own_word_says_when_a_machine_ended() -> None:
    said = {"StateTransitionReason": "User initiated (2026-11-24 09:31:29 GMT)"}
    assert ended_at(said) == datetime(2026, 11, 24, 9, 31, 29, tzinfo=UTC)
    assert ended_at({"StateTransitionReason": ""}) is None and ended_at({}) is None


def test_every_end_is_json_by_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    left = Removal((), (Left("aws:ec2/vpc:Vpc", "vpc", "vpc-1", "DependencyViolation"),))
    ends = [
        an_end(),
        an_end("checkpoint", "checkpoints/checkpoint-10"),
        an_end(removal=left),
        an_end(removal=None, by="ann on laptop"),
        End("tuning", URI, Verdict("nothing", "Nothing."), None),
    ]
    for end in ends:
        document = json.loads(json.dumps({"stack": "tuning", "sandbox": False, **end.to_json()}))
        Draft202012Validator(load("train")).validate(document)
        show_end(end, " --sandbox")
    out = capsys.readouterr().out
    assert "Left: vpc (vpc-1): DependencyViolation" in out and "berth train --attach tuning --sandbox" in out
    assert "destroyed by ann on laptop" in out
    assert [end.succeeded for end in ends] == [True, False, True, True, False]
    assert next_commands(ends[0], " --sandbox")[0] == "berth fetch tuning --sandbox --out artifact"
    assert "goes on from the checkpoint" in next_commands(ends[1], "")[0] and next_commands(ends[4], "") == []


def test_lines_tell_what_changed_and_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    node = (Node("i-1", "running", SINCE),)
    train = {
        "step": 10, "steps": 40, "loss": 1.25, "tokens_per_s": 1234.5, "memory_bytes": 3 << 30, "left_s": 95.0,
    }  # fmt: skip
    later = SINCE + timedelta(hours=1)
    quiet = Look(SINCE, node, None, None, None, (), None, later)
    busy = Look(SINCE, node, None, train, {"loss": 1.5}, ("step 10/40  loss 1.25", "a note"), Decimal("3.456"), later)
    for look in (quiet, quiet, busy, busy):
        lines.show(look)
    out = capsys.readouterr().out
    assert out.count("its watchdog has not spoken yet") == 1 and out.count("step 10/40") == 1
    for part in ("a note", "loss 1.2500", "1,234", "3.00 GiB", "spent $3.46", "left 1 min", "2026-11-24 10:30 UTC"):
        assert part in out


def test_on_a_terminal_the_numbers_are_drawn_and_the_log_runs_above_them() -> None:
    out = StringIO()
    terminal = Console(
        file=out, force_terminal=True, width=100, markup=False, emoji=False, highlight=False,
        _environ={"TERM": "xterm", "NO_COLOR": "1"},
    )  # fmt: skip
    train = {"step": 3, "steps": 9, "loss": 0.5, "tokens_per_s": 10.0, "memory_bytes": 1 << 30, "left_s": 12.0}
    node = (Node("i-1", "running", SINCE),)
    with Live(console=terminal, transient=True, auto_refresh=False) as live:
        drawn = Drawn(live)
        drawn.show(
            Look(SINCE, node, None, train, None, ("step 3/9 …", "a [note] of :smile: the log"), Decimal(2), None)
        )
        live.refresh()
        drawn.say("a sentence")
    text = out.getvalue()
    for part in ("a [note] of :smile: the log", "step 3/9", "0.5000", "$2.00", "12 s", "a sentence"):
        assert part in text
    assert "step 3/9 …" not in text


@pytest.fixture
def sandbox() -> Iterator[Path]:
    """The sandbox of this test's own cache; what it has started ends with the test."""
    folder = server.sandbox_dir()
    yield folder
    if folder.is_dir():
        with server.locked(folder):
            server.stop(folder)


@pytest.mark.slow
def test_killed_in_the_middle_the_run_is_attached_to_verified_and_destroyed(project: Path, sandbox: Path) -> None:
    """The command as a person runs it, with a node that trains a tiny model: kill -9, then --attach, to the bill."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "berth", "train", "tuning", "--sandbox"]
    with (project / "first.log").open("w") as log:
        first = subprocess.Popen(
            [*command, "--data", "pairs.jsonl", "--yes"], stdout=log, stderr=log, env=environment, cwd=project
        )
        _wait(lambda: "the run goes on" in (project / "first.log").read_text() or first.poll() is not None, 240)
        first.send_signal(signal.SIGKILL)
        first.wait(10)
    text = (project / "first.log").read_text()
    assert first.returncode == -signal.SIGKILL, text
    assert "Worst case" in text and "A tiny t5 with random weights stands in" in text
    ran = subprocess.run(
        [*command, "--attach", "--json"], capture_output=True, text=True, env=environment, cwd=project, timeout=400,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    end = json.loads(ran.stdout)
    Draft202012Validator(load("train")).validate(end)
    assert end["succeeded"] and end["verdict"] in ("verified", "gone") and end["left"] == []
    assert end["saved"]["what"] == "artifact" and end["bill"]["usd"] > 0
    told = subprocess.run(
        [*command, "--attach"], capture_output=True, text=True, env=environment, cwd=project, timeout=120, check=False
    )
    assert told.returncode == 0 and "is over; its node was destroyed by" in told.stdout, told.stderr


def _wait(done: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.1)
