"""`berth catalog refresh` as a person meets it, against AWS on this machine."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from local_aws import PriceApis

from berth.schemas import load


@pytest.fixture(autouse=True)
def reachable(endpoints: dict[str, str], aws: PriceApis, monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3, made by the command itself, reaches this machine's AWS."""
    for name, url in endpoints.items():
        monkeypatch.setenv(name, url)


def test_the_way_from_old_data_to_new_and_back(run_berth: Callable[..., Any], aws: PriceApis) -> None:
    before = run_berth("catalog", "show", "--region", "eu-west-1")
    assert "Berth's own data; nothing has been refreshed" in before.out
    assert "`berth catalog refresh --region eu-west-1` brings them up to date" in " ".join(before.out.split())

    refreshed = run_berth("catalog", "refresh", "--region", "eu-west-1")
    assert refreshed.code == 0
    lines = refreshed.err.splitlines()
    assert lines[:2] == ["eu-west-1: instance types", "eu-west-1: where they are offered"]
    assert re.fullmatch(r"eu-west-1: on-demand and reserved prices \(\d+ requests\)", lines[2])
    assert refreshed.out.startswith("Refreshed eu-west-1: ")
    assert "on demand: 0.5870 -> 0.6457 USD an hour (+10.0%)" in refreshed.out
    assert "without known bandwidth, throughput, compute capability and bf16: " in " ".join(refreshed.out.split())

    after = run_berth("catalog", "show", "--region", "eu-west-1")
    assert "Refreshed from AWS at " in after.out
    assert "Warning" not in after.out
    prices = json.loads(run_berth("catalog", "prices", "--region", "eu-west-1", "--family", "g4dn", "--json").out)
    assert prices[0]["usd_per_hour"]["on-demand"] == aws.on_demand[prices[0]["instance_type"], "eu-west-1"]

    removed = run_berth("catalog", "reset")
    assert (removed.code, removed.err) == (0, "")
    assert removed.out.startswith("removed the refreshed catalogue in ")
    assert "Berth's own data; nothing" in run_berth("catalog", "show").out


def test_json_is_one_document_and_progress_stays_apart(run_berth: Callable[..., Any], cache_dir: Path) -> None:
    ran = run_berth("catalog", "refresh", "--region", "eu-west-1", "--json")
    document = json.loads(ran.out)
    Draft202012Validator(load("catalog refresh")).validate(document)
    assert document.keys() == load("catalog refresh")["properties"].keys()
    assert document["regions"] == ["eu-west-1"]
    assert Path(document["folder"]).parent == cache_dir / "catalog"
    assert document["changed"][0].keys() == {"instance_type", "region", "before", "after"}
    assert document["new_types"]
    assert "T4g" in document["unknown_gpus"]


def test_a_damaged_cache_is_replaced_and_said(run_berth: Callable[..., Any], cache_dir: Path) -> None:
    (cache_dir / "catalog").mkdir()
    (cache_dir / "catalog" / "current").write_text("20260101T000000Z-gone")
    assert run_berth("catalog", "show").code == 2
    ran = run_berth("catalog", "refresh", "--region", "eu-west-1")
    assert ran.code == 0
    assert "Note: replaced without reuse: the refreshed catalogue in " in ran.out
    assert run_berth("catalog", "show").code == 0


def test_a_denied_group_can_be_left_out(run_berth: Callable[..., Any], aws: PriceApis) -> None:
    denied = 400, {"__type": "AccessDeniedException", "message": "not authorized"}
    aws.before = lambda service, _: denied if service == "savingsplans" else None
    ran = run_berth("catalog", "refresh", "--region", "eu-west-1")
    assert (ran.code, ran.out) == (2, "")
    assert "leave it out with --without savings" in ran.err
    assert run_berth("catalog", "refresh", "--region", "eu-west-1", "--without", "savings").code == 0


def test_a_terminal_sees_a_bar() -> None:
    """On a terminal the stages are drawn as bars on stderr, while stdout holds the result alone."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "berth", "catalog", "refresh", "--region", "eu-west-1", "--json"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=follower)
    os.close(follower)
    assert child.stdout is not None
    drawn = b""
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # Linux's end of a terminal whose other side is closed
            break
        if not chunk:
            break
        drawn += chunk
    out = child.stdout.read()
    child.stdout.close()
    assert child.wait() == 0
    os.close(leader)
    assert json.loads(out)["regions"] == ["eu-west-1"]
    assert re.search(r"on-demand and reserved prices +━+ (\d+)/\1 ", drawn.decode())
