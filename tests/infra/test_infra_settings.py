"""Settings of stacks: what is refused, by which name; defaults that Pulumi merges; durations and schedules."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from infra_projects import ENDPOINT, INFERENCE, SHARED, TRAINING

from infra.durations import parse_duration, parse_instant, parse_schedule, write_instant
from infra.settings import InferenceSettings, Keys, MachineSettings, read_settings
from infra.settings_reference import page
from infra.stack_files import ROOT, config_declarations, load_yaml, plain, render_project
from sizing.errors import UserError


def refused(values: dict[str, Any]) -> str:
    with pytest.raises(UserError) as error:
        read_settings(values, "trial")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("values", [INFERENCE, ENDPOINT, TRAINING, SHARED])
def test_the_settings_of_every_role_are_read(values: dict[str, Any]) -> None:
    assert read_settings(values, "trial").role == values["role"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"replica": 2}, "replica"),
        ({"role": "server"}, "role"),
        ({"owner": ""}, "owner"),
        ({"budget_per_month": 0}, "budget_per_month"),
        ({"budget_per_month": "a lot"}, "budget_per_month"),
        ({"alarm_email": "nobody"}, "alarm_email"),
        ({"log_retention_days": 31}, "log_retention_days"),
        ({"model": ""}, "model"),
        ({"nodes": 2}, "nodes"),
        ({"keep_versions_days": 7}, "keep_versions_days"),
        ({"purchase": "free"}, "purchase"),
        ({"purchase": "capacity-block"}, "purchase"),
        ({"replicas": 3, "max_replicas": 2}, "max_replicas"),
        ({"callers": ["10.0.0.0/33"]}, "callers"),
        ({"callers": ["2001:db8::/32"]}, "callers"),
        ({"callers": ["203.0.113.0/24"]}, "certificate_arn"),
        ({"schedule": "always"}, "schedule"),
        ({"schedule": "Mon-Fri 08:00-18:00 Europe/Nowhere"}, "Europe/Nowhere"),
        ({"schedule": "Mon-Fri 08:00-18:00 UTC", "purchase": "spot"}, "schedule"),
        ({"schedule": "Mon-Fri 08:00-18:00 UTC", "purchase": "reserved-1y"}, "schedule"),
        ({"time_to_live": "soon"}, "time_to_live"),
        ({"expires_at": "2026-12-01T00:00:00Z"}, "expires_at"),
        ({"time_to_live": "2h", "expires_at": "2026-12-01T00:00:00"}, "expires_at"),
        ({"vpc_id": "vpc-0a1b2c3d"}, "subnet_ids"),
        ({"vpc_id": "vpc-0a1b", "subnet_ids": ["subnet-1"], "egress": "nat"}, "egress"),
        ({"vpc_cidr": "8.8.0.0/16"}, "vpc_cidr"),
        ({"vpc_cidr": "10.0.0.0/24"}, "vpc_cidr"),
        ({"artifact": "s3://bucket/models"}, "artifact"),
        ({"bundle": "../other"}, "bundle"),
        ({"artifact_manifest_sha256": "abc"}, "artifact_manifest_sha256"),
        ({"shared_stack": "shared"}, "shared_stack"),
        ({"ami": "latest"}, "ami"),
        ({"feedback": True, "replicas": 2}, "feedback"),
        ({"feedback": True, "max_replicas": 3}, "feedback"),
    ],
)
def test_what_contradicts_itself_is_refused_by_its_key(change: dict[str, Any], named: str) -> None:
    assert named in refused({**INFERENCE, **change})


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({**TRAINING, "time_to_live": "off"}, "time_to_live"),
        ({**TRAINING, "dataset": ""}, "dataset"),
        ({**TRAINING, "purchase": "capacity-block"}, "capacity_block_id"),
        ({**TRAINING, "capacity_block_id": "cr-0123"}, "capacity_block_id"),
        ({**TRAINING, "callers": ["10.0.0.0/8"]}, "callers"),
        ({**TRAINING, "dtype": "int8"}, "dtype"),
        ({**TRAINING, "method": "prompt"}, "method"),
        ({**TRAINING, "micro_batch_size": 4}, "micro_batch_size"),
        ({**TRAINING, "zero_stage": 2}, "micro_batch_size"),
        ({**TRAINING, "method": "full", "micro_batch_size": 4, "zero_stage": 2, "offload": "all"}, "offload"),
        ({**TRAINING, "finetune": "../secrets.json"}, "finetune"),
        ({**ENDPOINT, "purchase": "spot"}, "purchase"),
        ({**ENDPOINT, "feedback": True}, "feedback"),
        ({**ENDPOINT, "invocation": "async", "capture_percent": 10}, "capture_percent"),
        ({**SHARED, "model": "google/flan-t5-xl"}, "model"),
    ],
)
def test_each_role_has_contradictions_of_its_own(values: dict[str, Any], named: str) -> None:
    assert named in refused(values)


def test_an_unknown_key_gets_the_nearest_one_offered() -> None:
    assert "did you mean" in refused({**INFERENCE, "instance_typ": "g5.xlarge"})


def test_several_mistakes_are_told_at_once() -> None:
    said = refused({**INFERENCE, "owner": "", "alarm_email": "x"})
    assert "owner" in said and "alarm_email" in said


@pytest.mark.parametrize("values", [INFERENCE, ENDPOINT, TRAINING, SHARED])
def test_defaults_that_the_engine_merges_in_as_text_change_nothing(values: dict[str, Any]) -> None:
    merged = {key: entry["default"] for key, entry in config_declarations().items() if "default" in entry} | values
    as_text = {k: v if isinstance(v, str) else json.dumps(v) for k, v in merged.items()}
    assert read_settings(as_text, "trial") == read_settings(values, "trial")


def test_every_key_is_described_and_keeps_one_default_over_all_roles() -> None:
    for key, (field, roles) in Keys.all().items():
        assert field.description and field.description[0].isupper(), key
        for role in roles:
            from infra.settings import MODELS

            assert MODELS[role].model_fields[key].default == field.default, f"{key} of {role}"


def test_the_project_file_and_the_page_of_settings_are_generated() -> None:
    assert (ROOT / "Pulumi.yaml").read_text(encoding="utf-8") == render_project(), "run `make docs`"
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == page(), "run `make docs`"


def test_the_project_file_declares_types_that_pulumi_knows() -> None:
    document = plain(load_yaml(ROOT / "Pulumi.yaml"))
    assert document["main"] == "infra/" and document["stackConfigDir"] == "stacks"
    for key, entry in document["config"].items():
        assert entry["type"] in ("string", "integer", "boolean", "array"), key
        expected = {"string": str, "integer": int, "boolean": bool, "array": list}[entry["type"]]
        assert isinstance(entry.get("default", expected()), expected), key


def test_public_callers_and_more_hosts_need_a_load_balancer() -> None:
    def settings(**change: Any) -> InferenceSettings:
        found = read_settings({**INFERENCE, **change}, "trial")
        assert isinstance(found, InferenceSettings)
        return found

    arn = "arn:aws:acm:us-east-1:111122223333:certificate/x"
    assert not settings().balanced
    assert settings(max_replicas=2).balanced
    assert settings(callers=["203.0.113.0/24"], certificate_arn=arn).balanced
    assert not settings(callers=["10.1.0.0/16", "100.64.1.0/24"]).internet_facing


@given(st.integers(1, 9999), st.sampled_from("mhdw"))
def test_durations_read_as_written(count: int, unit: str) -> None:
    seconds = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}[unit]
    assert parse_duration(f"{count}{unit}") == timedelta(seconds=count * seconds)


@pytest.mark.parametrize("text", ["", "0h", "12", "h", "-1h", "1.5h", "1y"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)))
def test_moments_come_back_to_the_second(moment: datetime) -> None:
    aware = moment.replace(tzinfo=UTC, microsecond=0)
    assert parse_instant(write_instant(aware)) == aware


def test_office_hours_are_counted_and_written_as_both_schedulers_read_them() -> None:
    hours = parse_schedule("Mon-Fri 08:30-18:00 Europe/Berlin")
    assert hours is not None
    assert hours.hours_per_month == pytest.approx(5 * 9.5 * 365 / 7 / 12)
    assert hours.cron(hours.start) == "30 8 * * MON-FRI"
    assert hours.scheduler_cron(hours.stop) == "cron(0 18 ? * MON-FRI *)"
    assert parse_schedule("Sat 10:00-12:00 UTC").days == "SAT"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text", ["Fri-Mon 08:00-18:00 UTC", "Mon-Fri 18:00-08:00 UTC", "Mon-Fri 08:61-18:00 UTC", "Abc 08:00-18:00 UTC"]
)
def test_hours_that_run_backwards_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"day|earlier"):
        parse_schedule(text)


def test_settings_cannot_be_changed_after_they_are_read() -> None:
    settings = read_settings(INFERENCE, "trial")
    assert isinstance(settings, MachineSettings)
    with pytest.raises(Exception, match="frozen"):
        settings.dtype = "bf16"  # type: ignore[misc]
