"""A training stack's run: what sizing plans is recorded, found again, and reaches the node as its finetune.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from infra_projects import MOMENT, TRAINING, Project

from infra.context import Context
from infra.new_stack import new_stack, record_choice
from infra.policy.cost import holds_model
from infra.policy.subject import Subject
from infra.resolve import resolve
from infra.settings import TrainingSettings, read_settings
from infra.stack_files import StackFile, read_stack
from infra.training_job import finetune_settings, plan_files, recorded_plan, write_bundle
from model_runtime.training.plan import plan_of, planned_settings
from model_runtime.training.settings import read_settings as read_finetune
from sizing.errors import UserError
from sizing.hardware.load import load_hardware
from sizing.models.resolve import resolve_model

ASKED = {**TRAINING, "instance_type": "auto", "dtype": "auto", "zones": ["use1-az1"], "examples": 20_000}


def resolved(project: Project, name: str) -> tuple[StackFile, Context]:
    file = read_stack(name, project.root)
    context = resolve(
        name, file.region, file.settings, "111122223333", load_hardware(), resolve_model, strict=True,
        clock=lambda: MOMENT,
    )  # fmt: skip
    return file, context


def recorded(project: Project, **change: Any) -> tuple[StackFile, Context]:
    project.write("tune", {**ASKED, **change})
    record_choice("tune", project.root, clock=lambda: MOMENT)
    return resolved(project, "tune")


@pytest.mark.parametrize(
    "change",
    [
        {"method": "full"},
        {"method": "qlora", "model": "meta-llama/Llama-3.1-8B"},
        {"method": "full", "instance_type": "p4d.24xlarge", "nodes": 2, "model": "meta-llama/Llama-3.1-8B"},
    ],
    ids=lambda c: "-".join(map(str, c.values())),
)
def test_what_is_recorded_is_the_plan_that_sizing_made(project: Project, change: dict[str, Any]) -> None:
    from infra.training_job import choose_plan

    wished = read_settings({**ASKED, **change}, "tune")
    assert isinstance(wished, TrainingSettings)
    model = resolve_model(wished.model)
    chosen, _ = choose_plan(wished, "us-east-1", model, load_hardware())
    _, context = recorded(project, **change)
    settings = context.settings
    assert isinstance(settings, TrainingSettings)
    again = recorded_plan(settings, "us-east-1", model, load_hardware())
    assert again.summary() == chosen.summary()
    assert again.nodes == change.get("nodes", 1)
    assert plan_files(settings, again, model) == plan_files(wished, chosen, model)


def test_the_bundle_of_a_stack_holds_its_plan_as_the_node_reads_it(project: Project, tmp_path: Path) -> None:
    (project.root / "tune.json").write_text(json.dumps({"learning_rate": 0.0003, "form": "seq2seq"}), encoding="utf-8")
    file, context = recorded(project, method="full", epochs=2.0, finetune="tune.json")
    made = write_bundle(file, context, tmp_path / "bundle")
    settings = read_finetune(made.folder / "finetune.json")
    assert (settings.model, settings.data, settings.output) == (
        "/opt/berth/data/model", "/opt/berth/data/dataset", "/opt/berth/data/output",
    )  # fmt: skip
    assert settings.upload == "", "the run takes the bucket and prefix of the node's environment"
    assert (settings.learning_rate, settings.form, settings.model_name) == (0.0003, "seq2seq", "google/flan-t5-xl")
    plan = recorded_plan(context.settings, "us-east-1", context.model, context.hardware)  # type: ignore[arg-type]
    run = plan_of(settings)
    assert (run.global_batch, run.nodes, run.processes) == (64, plan.nodes, plan.setup.gpus)
    assert (run.micro_batch, run.zero_stage) == (plan.setup.micro_batch, plan.setup.zero_stage)
    _, changed = planned_settings(settings, run)
    assert changed == (), "the settings say what the plan says, so nothing is changed on the node"
    assert settings.usd_per_hour == pytest.approx(plan.usd_per_hour)


def test_an_unknown_number_of_examples_foresees_no_hours(project: Project) -> None:
    _, context = recorded(project, method="full", instance_type="p4d.24xlarge", examples=0)
    settings, model = context.settings, context.model
    assert isinstance(settings, TrainingSettings) and model is not None
    plan = recorded_plan(settings, "us-east-1", model, context.hardware)
    details = plan_files(settings, plan, model)["training_plan.json"]
    assert (
        details["examples"] is details["steps"] is details["predicted"]["hours"] is details["predicted"]["usd"] is None
    )
    assert details["predicted"]["step_s"] > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"examples": 0}, "examples: is missing"),
        ({"time_to_live": "10m"}, "time_to_live: 10m leaves no time"),
        ({"examples": 10**9}, "over time_to_live"),
        (
            {"budget_per_run": 1, "instance_type": "g6e.xlarge", "method": "lora", "examples": 10**5},
            "over budget_per_run",
        ),
        ({"instance_type": "g4dn.xlarge", "method": "full"}, "system RAM"),
        ({"instance_type": "g5.48xlarge", "method": "full", "model": "meta-llama/Llama-2-70b-hf"}, "GiB short"),
    ],
)
def test_a_run_that_cannot_be_planned_says_what_stands_in_its_way(
    project: Project, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        recorded(project, **change)


def test_an_up_without_a_recorded_plan_stops_with_the_command_that_records_it(project: Project) -> None:
    project.write("tune", {**TRAINING, "expires_at": "2026-11-25T12:00:00Z"})
    with pytest.raises(UserError, match=r"micro_batch_size; run `berth settings tune --record`"):
        resolved(project, "tune")


def test_the_file_of_further_settings_cannot_contradict_the_stack(project: Project) -> None:
    (project.root / "more.json").write_text('{"epochs": 9, "seed": 1}', encoding="utf-8")
    file, context = recorded(project, method="lora", finetune="more.json")
    plan = recorded_plan(context.settings, "us-east-1", context.model, context.hardware)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"names epochs; the stack file decides that"):
        finetune_settings(file, plan, context)
    (project.root / "more.json").write_text('{"sed": 1}', encoding="utf-8")
    with pytest.raises(UserError, match=r"unknown setting sed; did you mean seed"):
        finetune_settings(file, plan, context)


def test_a_machine_that_sizing_would_not_choose_is_a_warning(project: Project) -> None:
    plan = project.plan({**TRAINING, "method": "full", "examples": 1000})
    assert any("p4d.24xlarge is recorded; sizing would choose" in w for w in plan.warnings)


@pytest.mark.parametrize(
    ("change", "short"),
    [
        ({"method": "full", "micro_batch_size": 8, "zero_stage": 1}, ""),
        ({"method": "full", "micro_batch_size": 64}, "memory of each A100"),
        ({"instance_type": "g5.xlarge", "method": "full", "micro_batch_size": 1, "zero_stage": 3, "offload": "all",
          "checkpointing": True}, "system RAM"),
        ({"instance_type": "g4dn.12xlarge", "method": "lora", "micro_batch_size": 1}, "bf16 absent"),
        ({"instance_type": "g4dn.xlarge", "dtype": "auto", "method": "full"}, "system RAM"),
    ],
)  # fmt: skip
def test_a_machine_too_small_for_its_run_is_refused(project: Project, change: dict[str, Any], short: str) -> None:
    plan = project.plan({**TRAINING, "zones": ["use1-az1"], **change})
    found = [v for v in holds_model(Subject.of_plan(plan)) if v.rule == "machine-too-small"]
    assert [v.level for v in found] == (["mandatory"] if short else [])
    assert all(short in v.message for v in found)


def test_a_classifier_is_trained_without_output_tokens(project: Project) -> None:
    _, context = recorded(project, model="google-bert/bert-base-uncased", method="full")
    plan = recorded_plan(context.settings, "us-east-1", context.model, context.hardware)  # type: ignore[arg-type]
    assert plan.setup.output_tokens == 0


def test_a_region_without_prices_leaves_the_run_open_and_says_so(project: Project) -> None:
    plan = project.plan({**TRAINING, "zones": ["sae1-az1"]}, "sa-east-1")
    assert any("how the run uses p4d.24xlarge cannot be planned: unknown region" in w for w in plan.warnings)
    assert list(holds_model(Subject.of_plan(plan))) == []


def test_new_training_stack_counts_a_file_and_records_the_whole_plan(
    project: Project, run_berth: Callable[..., Any]
) -> None:
    data = project.root / "data.jsonl"
    rows = [{"input": "a" * 400, "target": "b" * 40}, {"input": "a" * 80, "target": "b" * 8}]
    data.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    made = run_berth(
        "new", "tune", "--role", "training", "--model", "google/flan-t5-base", "--method", "full", "--data", str(data),
        "--epochs", "4", "--dataset", "datasets/x", "--owner", "me", "--json",
    )  # fmt: skip
    assert made.code == 0, made.err
    settings = json.loads(made.out)["settings"]
    assert (settings["examples"], settings["epochs"], settings["method"]) == (2, 4.0, "full")
    assert (settings["input_tokens"], settings["mean_input_tokens"]) == (100, 60)
    assert (settings["output_tokens"], settings["mean_output_tokens"]) == (10, 6)
    assert settings["micro_batch_size"] >= 1 and settings["instance_type"] != "auto"
    resolve_strictly = run_berth("settings", "tune", "--record")
    assert resolve_strictly.code == 0, resolve_strictly.err
    assert resolved(project, "tune")[1].settings.model_dump()["micro_batch_size"] == settings["micro_batch_size"]


def test_a_bought_capacity_block_is_named_at_once(project: Project) -> None:
    given = {k: v for k, v in ASKED.items() if k not in ("instance_type", "dtype", "zones")}
    made = new_stack(
        "tune", project.root, "us-east-1", {**given, "instance_type": "p5.48xlarge", "capacity_block_id": "cr-0a1b"},
        clock=lambda: MOMENT,
    )  # fmt: skip
    assert made.settings.model_dump()["purchase"] == "capacity-block"
