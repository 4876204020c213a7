"""The published schemas: every `--json` document keeps to its own, and each schema refuses what it should."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from jsonschema import Draft202012Validator

from berth.cli import app
from berth.schemas import VARIANTS, load, names, typed
from infra.doctor.finding import Finding
from scripts.commands_reference import walk
from scripts.json_reference import PAGE, render
from sizing.dtypes import DTYPES
from sizing.hardware.tables import GROUPS
from sizing.hardware.types import PAYS
from sizing.measured.outcome import Origin
from sizing.memory.terms import METRICS
from sizing.memory.training.setup import Method
from sizing.models.catalogue import ARCHITECTURES, VERDICTS, load_catalogue
from sizing.models.facts import Kind, Part
from sizing.models.tasks import TASKS
from sizing.need import questions
from sizing.need.table import Verdict
from sizing.training_plan.plan import Kind as TrainingRefusal

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., Any]
XL = "google/flan-t5-xl"
MISTRAL = "mistralai/Mistral-7B-v0.1"

SITUATIONS: dict[str, list[tuple[str, ...]]] = {
    "assess": [
        ("--task", "summarization"),
        ("--task", "none"),
        ("--task", "sentiment", "--rule", "yes"),
        ("--task", "translation", "--data-may-leave", "aws-only", "--languages", "en,de"),
        ("--task", "chat", "--examples", "500", "--requests-per-day", "5000", "--latency", "5"),
    ],
    "models": [
        (),
        ("--task", "translation", "--licence", "business", "--fits", "g4dn.2xlarge"),
        ("--task", "code", "--max-params", "1M"),
        (XL,),
        ("mixtral",),
        ("google-bert/bert-base-uncased",),
        ("google/gemma-2-2b-it",),
        ("chatgpt",),
    ],
    "memory": [
        (XL,),
        (XL, "--dtype", "int8", "--batch", "8", "--instance", "g4dn.2xlarge"),
        (XL, "--dtype", "float32", "--instance", "c7i.large"),
        ("google-bert/bert-base-uncased", "--output-tokens", "0"),
        (MISTRAL, "--dtype", "fp16", "--tensor-parallel", "4", "--engine", "vllm", "--loading", "mmap"),
        ("mixtral", "--dtype", "nf4-dq", "--attention", "eager"),
        (XL, "--for", "training"),
        (MISTRAL, "--for", "training", "--method", "qlora", "--checkpointing", "--base-dtype", "nf4"),
        (MISTRAL, "--for", "training", "--method", "lora", "--lora-targets", "all-linear"),
        ("openai-community/gpt2", "--for", "training", "--precision", "fp32", "--optimizer", "sgd"),
        (MISTRAL, "--for", "training", "--gpus", "8", "--zero", "3", "--offload", "optimizer"),
    ],
    "size": [
        (XL, "--dtype", "fp32"),
        (XL, "--dtype", "fp32", "--loading", "mmap"),
        (XL, "--pay", "best", "--region", "any"),
        (XL, "--requests-per-day", "100000", "--latency", "8", "--hours-per-day", "10"),
        (XL, "--requests-per-day", "50", "--pay", "reserved-1y"),
        ("google-bert/bert-base-uncased", "--batch", "16"),
        (MISTRAL, "--dtype", "nf4", "--pay", "spot"),
        (MISTRAL, "--dtype", "fp16", "--engine", "vllm", "--max-gpus", "8"),
        ("meta-llama/Llama-2-70b-hf", "--max-gpus", "8", "--dtype", "fp16"),
        ("meta-llama/Llama-2-70b-hf",),
        (XL, "--max-monthly", "1"),
        ("--task", "summarization"),
    ],
    "size training": [
        (XL, "--data", "10000", "--method", "lora", "--instance-type", "g6.2xlarge"),
        (XL, "--data", "10000"),
        (MISTRAL, "--data", "500", "--method", "qlora", "--pay", "spot", "--max-hours", "10"),
        (XL, "--data", "10000", "--max-usd", "0.01"),
        ("openai-community/gpt2", "--data", "2000", "--pay", "capacity-block", "--region", "any"),
    ],
    "catalog show": [(), ("--region", "us-east-1", "--family", "g4dn")],
    "catalog types": [()],
    "catalog prices": [(), ("--region", "eu-west-1", "--family", "p4d"), ("--region", "eu-central-1")],
    "settings": [(), ("--role", "training"), ("inference-prod",)],
    "preview": [("inference-dev",), ("endpoint-prod",), ("training",)],
    "schema": [(), ("size",), ("catalog", "show")],
}
"""What each command is tried with here; those of `ON_THEIR_OWN` have a test of their own, because they write or ask."""
ON_THEIR_OWN = {
    "bundle",
    "fetch",  # tests/infra/test_uploads_command.py, with a local AWS
    "data check",  # tests/model_runtime/test_data_command.py
    "data split",
    "evaluate",  # tests/model_runtime/test_evaluate.py
    "deploy",  # tests/infra/test_infra_deployment.py
    "catalog refresh",  # tests/infra/catalog_refresh/test_refresh_command.py, where AWS's answers are
    "doctor",
    "up",  # these four: tests/infra/test_lifecycle_commands.py and its neighbours, with a local AWS
    "status",
    "extend",
    "down",
    "feedback",  # tests/infra/operations/test_feedback_command.py, with a bucket
    "metrics",  # tests/infra/operations/test_metrics_command.py, with a CloudWatch
    "new",
    "sandbox down",  # tests/infra/test_sandbox_command.py, with a local AWS
    "sandbox status",
    "sandbox up",
    "train",  # tests/berth/test_train_command.py, with a local AWS
    "review summary",  # tests/berth/review/test_review_summary.py
    "verify",  # tests/model_runtime/test_verify.py, where a model is served
}
CASES = [(command, arguments) for command, tries in SITUATIONS.items() for arguments in tries]


def with_json() -> set[str]:
    """The commands that have `--json`, without the word `berth`."""
    return {
        name.removeprefix("berth ")
        for name, command, _ in walk(typer.main.get_command(app))
        if any("--json" in parameter.opts for parameter in command.params)
    }


def parts(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every subschema with its place."""
    if isinstance(schema, dict):
        yield path, schema
        for key, value in schema.items():
            yield from parts(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from parts(value, f"{path}/{index}")


@cache
def strict(command: str) -> Draft202012Validator:
    """The schema with its outermost object closed as well: no key of today's is without a description."""
    schema = copy.deepcopy(load(command))
    for _, part in parts(schema):
        if part.get("additionalProperties") is True and "properties" in part:
            part["additionalProperties"] = False
    return Draft202012Validator(schema)


def printed(run_berth: Run, command: str, arguments: tuple[str, ...]) -> Any:
    ran = run_berth(*typed(command).split(), *arguments, "--json")
    assert ran.code in ((0, 2) if command.startswith("size") else (0,)), ran.err
    return json.loads(ran.out)


@pytest.mark.parametrize(("command", "arguments"), CASES)
def test_what_a_command_prints_keeps_to_its_schema(run_berth: Run, command: str, arguments: tuple[str, ...]) -> None:
    document = printed(run_berth, command, arguments)
    assert [f"{error.json_path}: {error.message}" for error in strict(command).iter_errors(document)] == []


def test_a_folder_and_its_model_keep_to_the_schemas(run_berth: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(dict(load_catalogue().configs[MISTRAL])))
    for command in ("models", "memory", "size"):
        strict(command).validate(printed(run_berth, command, (str(tmp_path),)))


def test_a_bundle_keeps_to_its_schema(run_berth: Run, tmp_path: Path) -> None:
    ran = run_berth("bundle", XL, "--out", tmp_path / "bundle", "--archive", "--json")
    strict("bundle").validate(json.loads(ran.out))


def test_a_new_stack_keeps_to_its_schema(run_berth: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "Pulumi.yaml", tmp_path)
    (tmp_path / "stacks").mkdir()
    monkeypatch.chdir(tmp_path)
    machine = ("--role", "inference", "--model", XL, "--dtype", "fp32")
    for arguments in (("shared", "--role", "shared"), ("tickets", *machine)):
        ran = run_berth("new", *arguments, "--json")
        strict("new").validate(json.loads(ran.out))


def test_findings_keep_to_the_schema() -> None:
    found = [Finding("region", "ok", "it is enabled"), Finding("quota", "failed", "0 vCPUs", "ask for more")]
    strict("doctor").validate({"stack": "dev", "region": "us-east-1", "findings": [f.to_json() for f in found]})


def test_the_situations_reach_both_ends_of_a_choice(run_berth: Run) -> None:
    chosen = [printed(run_berth, "size", arguments)["choice"] for arguments in SITUATIONS["size"][-3:]]
    assert chosen[0] is None
    assert chosen[1] is None
    assert chosen[2] is not None


def test_every_command_with_json_has_a_schema_and_no_schema_is_without_its_command() -> None:
    assert set(names()) - set(VARIANTS) == with_json()
    assert set(VARIANTS) <= set(names())


def test_every_schema_is_tried() -> None:
    assert set(names()) == set(SITUATIONS) | ON_THEIR_OWN


@pytest.mark.parametrize("command", names())
def test_a_schema_is_one_and_says_what_it_is(command: str) -> None:
    schema = load(command)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"].startswith(f"urn:berth:schema:{command.replace(' ', '-')}:")
    assert schema["title"] == f"What berth {typed(command)} --json prints"
    assert schema["description"]
    for path, part in parts(schema):
        if "properties" in part and "type" in part:
            assert "additionalProperties" in part, f"{path} does not say whether it is open"
            if part["additionalProperties"] is not False:
                assert part.get("$comment"), f"{path} is open and does not say why"
            for name, value in part["properties"].items():
                target = value
                if set(value) == {"$ref"}:
                    target = schema["$defs"][value["$ref"].removeprefix("#/$defs/")]
                assert target.get("description"), f"{path}/{name} has no description"
    used = {part["$ref"].removeprefix("#/$defs/") for _, part in parts(schema) if str(part.get("$ref")).startswith("#")}
    assert used == set(schema.get("$defs", {}))


def types_of(part: dict[str, Any]) -> set[str]:
    found = part.get("type", ())
    return {found} if isinstance(found, str) else set(found)


PURE_NUMBERS = {"epochs", "kappa", "overhead", "peak_factor", "compute_capability", "gpu_count", "quantity"}
UNITS = (
    "byte",
    "gib",
    "gb/s",
    "gbit/s",
    "tflop/s",
    "second",
    "us dollar",
    "percent",
    "hours",
    "requests a",
    "tokens a",
)


@pytest.mark.parametrize("command", names())
def test_a_quantity_says_its_unit(command: str) -> None:
    """Whole numbers are counts or bytes; whatever is measured says in which unit, and so does a range of it."""
    schema = load(command)
    ranged = [
        (f"{path}/{name}", value)
        for path, part in parts(schema)
        for name, value in part.get("properties", {}).items()
        if value.get("$ref") == "#/$defs/range" or ("number" in types_of(value) and "/range" not in path)
    ]
    bare = [path for path, value in ranged if not any(unit in value["description"].lower() for unit in UNITS)]
    assert [path for path in bare if path.rsplit("/", 1)[-1] not in PURE_NUMBERS] == []
    sizes = [
        f"{path}/{name}"
        for path, part in parts(schema)
        for name, value in part.get("properties", {}).items()
        if name.endswith("bytes") and "integer" in types_of(value) and "bytes" not in value["description"].lower()
    ]
    assert sizes == []


def test_definitions_of_one_name_are_the_same_wherever_memory_and_gpus_are_described() -> None:
    memory, size = load("memory")["$defs"], load("size")["$defs"]
    shared = set(memory) & set(size)
    assert {"place", "term", "range_bytes", "rule_of_thumb", "phase", "inference_assumptions"} <= shared
    assert {name for name in shared if memory[name] != size[name]} == set()
    training = load("size training")["$defs"]
    shared = set(memory) & set(training)
    assert {"place", "term", "training_assumptions"} <= shared
    assert {name for name in shared if memory[name] != training[name]} == set()
    assert training["range"] == size["range"]


def values(command: str, definition: str, key: str) -> set[str]:
    part = load(command)["$defs"][definition]["properties"][key]
    return set(part.get("items", part)["enum"])


def test_words_that_may_be_printed_are_those_of_the_code() -> None:
    assert values("size", "choice", "pay") == set(PAYS)
    assert set(load("size")["$defs"]["measured"]["properties"]["origins"]["additionalProperties"]["enum"]) == set(
        get_args(Origin)
    )
    assert values("size", "choice", "dtype") == values("models", "fit", "dtype") == set(DTYPES)
    assert values("size training", "summary", "pay") == {*PAYS, "capacity-block"}
    assert values("size training", "refusal", "kind") == set(get_args(TrainingRefusal))
    assert values("size training", "summary", "method") == set(get_args(Method))
    assert values("memory", "term", "metric") == set(METRICS)
    assert values("models", "row", "architecture") == set(ARCHITECTURES)
    assert values("models", "row", "licence_verdict") == {*VERDICTS, "unknown"}
    assert values("models", "row", "tasks") == values("models", "task", "name") == set(TASKS)
    assert values("models", "tensor", "kind") == set(get_args(Kind))
    assert values("models", "tensor", "part") == set(get_args(Part))
    assert set(load("assess")["properties"]["verdict"]["enum"]) == set(get_args(Verdict))
    assert values("assess", "answers", "task") == set(questions.TASKS)
    assert values("assess", "reason", "question") == set(questions.BY_KEY)
    assert set(GROUPS) <= values("catalog-show", "group", "group")


def places(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value in a document with its place; of a list the first three items."""
    yield at, document
    if isinstance(document, dict):
        for key, value in document.items():
            yield from places(value, (*at, key))
    elif isinstance(document, list):
        for index, value in enumerate(document[:3]):
            yield from places(value, (*at, index))


def changed(document: Any, at: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """A copy of `document` in which the value at `at` is what `change` makes of it."""
    if not at:
        return change(document)
    draft = document.copy()
    draft[at[0]] = changed(document[at[0]], at[1:], change)
    return draft


def without(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda found: {name: value for name, value in found.items() if name != key}


OPEN_MAPS = {
    ("costs", "upfront_effective_usd_per_hour"), ("effective",), ("terms",), ("as_of",), ("assumptions",),
    ("costs", "by_pay"),
}  # fmt: skip
OPEN_IN = {"size training": {("by_method",), ("memory", "assumptions")}}
FOREIGN = {"settings", "configuration", "outputs", "inputs", "options", "recorded"}
"""Objects whose keys are not Berth's to say: a stack file's, a cloud provider's."""
MAY_LACK = {"fit", "measured", "leaner_loading"}


@pytest.mark.parametrize("command", [name for name in SITUATIONS if name != "schema"])
def test_a_document_that_lacks_a_key_or_holds_an_alien_is_refused(run_berth: Run, command: str) -> None:
    """Each key taken out, each value put in a type of no sense, and each object given a key that nobody described."""
    document = printed(run_berth, command, SITUATIONS[command][0])
    validator = Draft202012Validator(load(command))
    validator.validate(document)
    passed = []
    maps = OPEN_MAPS | OPEN_IN.get(command, set())
    for at, value in places(document):
        words = tuple(step for step in at if isinstance(step, str))
        if FOREIGN & set(words[:-1]):
            continue
        if validator.is_valid(changed(document, at, lambda _: [["alien"]])):
            passed.append(f"{at} may be anything")
        if not isinstance(value, dict) or words in maps or FOREIGN & set(words):
            continue
        if at and validator.is_valid(changed(document, at, lambda found: {**found, "alien": 1})):
            passed.append(f"{at} may hold any key")
        for key in value.keys() - MAY_LACK:
            if validator.is_valid(changed(document, at, without(key))):
                passed.append(f"{at} may lack {key}")
    assert passed == []


@pytest.mark.parametrize(
    ("command", "arguments", "at", "wrong"),
    [
        ("size", (XL,), ("choice", "usd_per_hour"), 0),
        ("size", (XL,), ("choice", "usd_per_hour"), "0.752"),
        ("size", (XL,), ("choice", "pay"), "best"),
        ("size", (XL,), ("choice", "max_batch"), 0),
        ("size", (XL,), ("choice",), None),
        ("size", (XL,), ("costs",), None),
        ("size", (XL,), ("costs", "by_pay", "spot", "usd_per_hour"), 0),
        ("size", (XL,), ("costs", "rare_use", "start_up", "total_s"), 485),
        ("size", (XL,), ("sagemaker", "usd_per_hour"), 0),
        ("size", (XL, "--dtype", "fp32"), ("leaner_loading", "saves_usd_per_month"), 0),
        ("size", (XL, "--dtype", "fp32"), ("leaner_loading", "loading"), "plain"),
        ("size", (XL,), ("refused", 0, "short_bytes"), 0),
        ("size", (XL,), ("refused", 0, "short_bytes"), -1),
        ("size", (XL,), ("memory", "device", "total_bytes"), 7.5),
        ("size", (XL,), ("workload", "hours_per_day"), 25),
        ("memory", (XL,), ("device", "terms", 0, "bytes"), -1),
        ("memory", (XL,), ("device", "metric"), "allocated"),
        ("memory", (XL,), ("for",), "training"),
        ("memory", (XL,), ("for",), "serving"),
        ("models", (XL,), ("params",), 0),
        ("models", (XL,), ("licence_verdict",), "fine"),
        ("models", (), ("models", 0, "architecture"), "encoder"),
        ("assess", ("--task", "qa"), ("verdict",), "maybe"),
        ("assess", ("--task", "qa"), ("next",), []),
        ("catalog show", (), ("groups", 0, "days"), -1),
        ("catalog prices", (), (0, "usd_per_hour", "on-demand"), 0),
        ("catalog types", (), (0, "memory_gib"), 0),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(
    run_berth: Run, command: str, arguments: tuple[str, ...], at: tuple[Any, ...], wrong: Any
) -> None:
    document = printed(run_berth, command, arguments)
    assert not Draft202012Validator(load(command)).is_valid(changed(document, at, lambda _: wrong))


def test_a_section_that_a_later_version_adds_is_passed_over(run_berth: Run) -> None:
    document = printed(run_berth, "size", (XL,)) | {"carbon": {"kg": 1}}
    assert Draft202012Validator(load("size")).is_valid(document)
    assert not strict("size").is_valid(document)


def test_the_page_is_what_the_schemas_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "docs/json.md is not up to date; run `make docs`"


def test_berth_schema_lists_and_prints(run_berth: Run) -> None:
    listed = run_berth("schema")
    assert (listed.code, listed.err) == (0, "")
    for name in names():
        assert f"\n{name}  " in listed.out
    assert json.loads(run_berth("schema", "size --for training").out) == load("size training")
    for words in (["catalog", "show"], ["catalog show"], ["catalog-show"], ["berth catalog show"]):
        ran = run_berth("schema", *words)
        assert (ran.code, json.loads(ran.out)) == (0, load("catalog show"))


def test_a_command_without_a_schema_is_one_line_and_exit_code_2(run_berth: Run) -> None:
    ran = run_berth("schema", "catalog", "shwo")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith("berth: unknown command with a schema 'catalog shwo'; did you mean catalog")
