"""`berth catalog`: what is in force, the lists, and mistakes; no account and no network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_show_says_what_is_in_force_from_where_and_how_old(run_berth: Run) -> None:
    ran = run_berth("catalog", "show")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("Berth's own data; nothing has been refreshed on this machine.\nFolder: ")
    assert "Unpriced in us-west-2: " in ran.out
    assert "p5e.48xlarge" in ran.out
    assert "us-east-2: no prices yet; `berth catalog refresh --region us-east-2` brings them" in ran.out
    assert max(len(line) for line in ran.out.splitlines() if not line.startswith("Folder")) <= 100


def test_show_as_json(run_berth: Run) -> None:
    document = json.loads(run_berth("catalog", "show", "--json").out)
    assert document["origin"]["kind"] == "embedded"
    assert document["types"] == 81
    groups = {group["group"]: group for group in document["groups"]}
    assert groups["on_demand"]["rows"] == 260
    assert groups["on_demand"]["newest"] == "2026-07-20"
    assert groups["savings_plan"] == {
        "group": "savings_plan",
        "rows": 6,
        "oldest": None,
        "newest": None,
        "undated": 6,
        "days": None,
        "stale": False,
    }
    regions = {region["region"]: region for region in document["regions"]}
    assert regions["us-east-1"]["priced"]["on-demand"] == 80
    assert regions["us-east-1"]["unpriced"] == []
    assert "p5e.48xlarge" in regions["us-west-2"]["unpriced"]
    # The shipped reserved and spot rates are of November 2025, and a test never runs before them.
    assert "reserved prices" in document["warnings"][0]


def test_a_region_and_a_family_narrow_it(run_berth: Run) -> None:
    document = json.loads(run_berth("catalog", "show", "--region", "eu-west-1", "--family", "g5", "--json").out)
    assert document["types"] == 8
    assert [region["region"] for region in document["regions"]] == ["eu-west-1"]
    assert document["regions"][0]["priced"]["on-demand"] == 8


def test_types_as_a_table_and_as_json(run_berth: Run) -> None:
    ran = run_berth("catalog", "types", "--family", "g4dn")
    assert ran.code == 0
    row = next(line.split() for line in ran.out.splitlines() if line.startswith("g4dn.2xlarge"))
    assert row == ["g4dn.2xlarge", "8", "32", "1", "×", "T4", "15.00", "320", "65", "no"]
    document = {row["instance_type"]: row for row in json.loads(run_berth("catalog", "types", "--json").out)}
    assert len(document) == 81
    assert document["g4dn.2xlarge"]["gpu"]["memory_source"] == "nvidia-smi"
    assert document["c7i.large"]["gpu"] is None
    assert document["g7.2xlarge"]["gpu"]["tflops_16bit_dense"] is None
    assert all(row["source"] and row["as_of"] for row in document.values())


def test_prices_show_unpriced_as_unpriced(run_berth: Run) -> None:
    lines = run_berth("catalog", "prices", "--region", "us-west-2").out.splitlines()
    row = next(line.split() for line in lines if line.startswith("p5e.48xlarge"))
    assert row == ["p5e.48xlarge", "unpriced", "–", "–", "–", "–", "–"]
    row = next(line.split() for line in lines if line.startswith("g4dn.2xlarge"))
    assert row[1:4] == ["0.7520", "0.4740", "0.3250"]


def test_prices_say_what_is_not_offered(run_berth: Run) -> None:
    out = " ".join(run_berth("catalog", "prices").out.split())
    assert "Offered in no zone: p3.2xlarge, p3.8xlarge, p3.16xlarge, p5e.48xlarge" in out


@pytest.mark.parametrize("listing", [("show",), ("types",), ("prices", "--region", "us-east-1")])
def test_no_table_is_cut_at_80_columns(
    run_berth: Run, monkeypatch: pytest.MonkeyPatch, listing: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert "…" not in run_berth("catalog", *listing).out


def test_prices_as_json_hold_every_rate_its_date_and_source(run_berth: Run) -> None:
    rows = {row["instance_type"]: row for row in json.loads(run_berth("catalog", "prices", "--json").out)}
    g4dn = rows["g4dn.2xlarge"]
    assert g4dn["usd_per_hour"]["reserved-1y"] == 0.474
    assert g4dn["usd_per_hour"]["savings-1y"] is None
    assert g4dn["as_of"]["on_demand"] == "2026-07-20"
    assert g4dn["source"]
    assert rows["p3.2xlarge"]["offered"] is False
    assert set(rows["p5e.48xlarge"]["usd_per_hour"].values()) == {None}


def test_a_rate_of_other_terms_is_marked_and_explained(run_berth: Run) -> None:
    out = run_berth("catalog", "prices", "--family", "g4dn").out
    assert "0.3160*" in out
    assert "* savings: effective rate of an undated copy of AWS's product page" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "--region", "us-esat-1"], "unknown region 'us-esat-1'; did you mean us-east-1"),
        (["prices", "--region", "nowhere"], "unknown region 'nowhere'; known: ap-northeast-1"),
        (["types", "--family", "g4"], "unknown instance family 'g4'; did you mean "),
        (["prices", "--family", "zzz"], "unknown instance family 'zzz'; families: c7i, g4dn"),
        (["refresh"], "Missing option '--region'"),
        (["refresh", "--region", "us-esat-1"], "unknown AWS region 'us-esat-1'; did you mean us-east-1"),
        (
            ["refresh", "--region", "us-east-1", "--without", "gold"],
            "unknown group for --without 'gold'; known: sagemaker",
        ),
        (["refresh", "--region", "us-east-1", "--profile", "nosuch"], "(nosuch) could not be found"),
        (["sow"], "No such command 'sow'"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(run_berth: Run, cache_dir: Path, arguments: list[str], message: str) -> None:
    ran = run_berth("catalog", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert not list(cache_dir.iterdir())


def test_no_credentials_is_one_line(run_berth: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    ran = run_berth("catalog", "refresh", "--region", "us-east-1")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("berth: no AWS credentials found: run `aws configure` or `aws sso login`")
    assert ran.err.count("\n") == 1


def test_a_damaged_cache_says_how_to_remove_it_and_reset_does(run_berth: Run, cache_dir: Path) -> None:
    (cache_dir / "catalog").mkdir()
    (cache_dir / "catalog" / "current").write_text("")
    ran = run_berth("catalog", "show")
    assert (ran.code, ran.out) == (2, "")
    assert "`berth catalog reset` removes the refreshed catalogue" in ran.err
    assert ran.err.count("\n") == 1
    assert run_berth("catalog", "reset").code == 0
    assert run_berth("catalog", "show").code == 0


def test_reset_with_nothing_to_remove(run_berth: Run) -> None:
    ran = run_berth("catalog", "reset")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("nothing to remove in ")
