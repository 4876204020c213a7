"""`berth memory` as a person meets it: the terms, the totals, the rule of thumb, JSON, and one line for a mistake."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sizing.hardware.load import load_hardware
from sizing.memory.inference import estimate_inference
from sizing.memory.loading import usable_ram_bytes
from sizing.memory.setup import InferenceSetup
from sizing.models.catalogue import load_catalogue

Run = Callable[..., Any]
XL = "google/flan-t5-xl"
MISTRAL = "mistralai/Mistral-7B-v0.1"
PARAMS = 2_849_757_184


def document(run_berth: Run, *arguments: Any) -> dict[str, Any]:
    ran = run_berth("memory", *arguments, "--json")
    assert (ran.code, ran.err) == (0, "")
    found: dict[str, Any] = json.loads(ran.out)
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        (XL,),
        (XL, "--dtype", "int8", "--batch", "8", "--input-tokens", "400", "--output-tokens", "60"),
        (MISTRAL, "--dtype", "fp16", "--tensor-parallel", "4"),
        ("google-bert/bert-base-uncased", "--output-tokens", "0"),
        (XL, "--for", "training", "--output-tokens", "128"),
        (MISTRAL, "--for", "training", "--method", "lora", "--gpus", "8", "--zero", "3"),
    ],
)
def test_json_has_the_agreed_shape_and_its_terms_add_up(run_berth: Run, arguments: tuple[str, ...]) -> None:
    found = document(run_berth, *arguments)
    for place in ("device", "host"):
        terms, by_metric = found[place]["terms"], found[place]["by_metric"]
        assert all({"name", "bytes", "formula"} <= set(term) for term in terms)
        assert found[place]["total_bytes"] == sum(term["bytes"] for term in terms) == by_metric["driver"]["bytes"]
        assert found[place]["low_bytes"] == sum(term["low_bytes"] for term in terms)
        assert found[place]["high_bytes"] == sum(term["high_bytes"] for term in terms)
        narrow = sum(term["bytes"] for term in terms if term["metric"] == "allocated")
        wider = sum(term["bytes"] for term in terms if term["metric"] != "driver")
        assert (by_metric["allocated"]["bytes"], by_metric["reserved"]["bytes"]) == (narrow, wider)
        assert 0 < narrow <= wider <= found[place]["total_bytes"]
    rule = found["rule_of_thumb"]
    assert set(rule) == {"params", "bytes_per_param", "overhead", "total_bytes"}
    assert rule["total_bytes"] == pytest.approx(rule["params"] * rule["bytes_per_param"] * rule["overhead"], abs=1)


def test_the_reference_case_in_figures(run_berth: Run) -> None:
    found = document(run_berth, XL, "--dtype", "fp32")
    weights = next(term for term in found["device"]["terms"] if term["name"] == "weights")
    assert (weights["bytes"], weights["formula"]) == (PARAMS * 4, "2.85B parameters × 4 bytes")
    assert found["rule_of_thumb"] == {
        "params": PARAMS, "bytes_per_param": 4.0, "overhead": 1.2, "total_bytes": -(-PARAMS * 48 // 10),
    }  # fmt: skip
    assert (found["model"], found["for"]) == (XL, "inference")
    assert found["setup"]["dtype"] == "fp32"


def test_the_same_for_people(run_berth: Run) -> None:
    ran = run_berth("memory", XL, "--dtype", "fp32")
    assert (ran.code, ran.err) == (0, "")
    text = " ".join(ran.out.split())
    for said in (
        "google/flan-t5-xl: 2.85B parameters (2,849,757,184), encoder-decoder",
        "serving in fp32 (32-bit floating point), 1 at once, 512 tokens in, 128 out",
        "weights 10.616 2.85B parameters × 4 bytes",
        "Rule of thumb: 2,849,757,184 parameters × 4 bytes × 1.2 = 12.74 GiB",
        "allocated (live tensors, torch.cuda.max_memory_allocated): ",
        "reserved (with the caching allocator's slack): ",
        "driver (as nvidia-smi shows the process): ",
        "Host memory while loading",
    ):
        assert said in text
    totals = [float(x) for x in re.findall(r"(?:allocated|reserved|driver) \([^)]*\): ([0-9.]+) GiB", text)]
    found = document(run_berth, XL, "--dtype", "fp32")["device"]["by_metric"]
    assert totals == [round(found[m]["bytes"] / 2**30, 2) for m in ("allocated", "reserved", "driver")]
    assert totals == sorted(totals)


def test_int8_shows_what_is_claimed_for_it_and_what_that_leaves_out(run_berth: Run) -> None:
    text = " ".join(run_berth("memory", XL, "--dtype", "int8").out.split())
    assert "-75 % against fp32 and -50 % against fp16" in text
    assert "it leaves out: " in text


@pytest.mark.parametrize("width", ["80", "120"])
@pytest.mark.parametrize("purpose", ["inference", "training"])
def test_the_text_keeps_to_the_width(run_berth: Run, monkeypatch: pytest.MonkeyPatch, width: str, purpose: str) -> None:
    monkeypatch.setenv("COLUMNS", width)
    ran = run_berth("memory", XL, "--for", purpose, "--instance", "g4dn.2xlarge")
    assert all(len(line) <= int(width) for line in ran.out.splitlines())
    assert "…" not in ran.out


def test_a_short_name_a_hub_style_name_and_a_folder_are_one_model(run_berth: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(dict(load_catalogue().configs[MISTRAL])))
    flags = ("--dtype", "fp16", "--batch", "4")
    by_name, by_short_name, by_folder = (document(run_berth, m, *flags) for m in (MISTRAL, "mistral-7b-v0.1", tmp_path))
    assert by_name == by_short_name
    for key in ("device", "host", "rule_of_thumb", "setup"):
        assert by_folder[key] == by_name[key]


def test_it_is_the_library_s_estimate(run_berth: Run) -> None:
    setup = InferenceSetup(dtype="nf4-dq", batch=3, input_tokens=700, output_tokens=50, attention="eager")
    flags = ("--dtype", "nf4-dq", "--batch", "3", "--input-tokens", "700", "--output-tokens", "50")
    found = document(run_berth, MISTRAL, *flags, "--attention", "eager")
    assert {key: found[key] for key in ("device", "host", "rule_of_thumb", "assumptions")} == estimate_inference(
        load_catalogue()[MISTRAL], setup
    ).to_json()


def test_auto_is_the_published_dtype_and_the_setup_says_so(run_berth: Run) -> None:
    assert document(run_berth, XL)["setup"]["dtype"] == "fp32"
    assert document(run_berth, MISTRAL)["setup"]["dtype"] == "bf16"
    assert document(run_berth, MISTRAL, "--dtype", "float16")["setup"]["dtype"] == "fp16"


def test_tensor_parallel_shows_each_device(run_berth: Run) -> None:
    one, four = (document(run_berth, MISTRAL, "--dtype", "fp16", "--tensor-parallel", n) for n in ("1", "4"))
    assert four["device"]["total_bytes"] < one["device"]["total_bytes"]
    assert any(term["name"] == "NCCL" for term in four["device"]["terms"])
    assert "Memory on each of 4 devices" in run_berth("memory", MISTRAL, "--tensor-parallel", "4").out


def test_an_instance_type_is_held_against_it(run_berth: Run) -> None:
    """The reference case: its GPU memory fits the T4, its host memory does not fit the smaller machine."""
    small, large = (
        document(run_berth, XL, "--dtype", "fp32", "--instance", name) for name in ("g4dn.xlarge", "g4dn.2xlarge")
    )
    usable = usable_ram_bytes(load_hardware().instance("g4dn.xlarge").memory_bytes)
    assert small["instance"] == {
        "instance_type": "g4dn.xlarge",
        "gpu": "T4",
        "gpus": 1,
        "gpu_memory_bytes": 15_360 * 2**20,
        "gpu_short_bytes": None,
        "usable_ram_bytes": usable,
        "ram_short_bytes": small["host"]["total_bytes"] - usable,
        "fits": False,
    }
    assert large["instance"]["fits"] is True
    assert document(run_berth, XL)["instance"] is None
    text = " ".join(run_berth("memory", XL, "--dtype", "fp32", "--instance", "g4dn.xlarge").out.split())
    assert "g4dn.xlarge: T4 leaves 15.00 GiB (nvidia-smi): fits" in text
    assert "loading does not fit, 9.90 GiB short" in text


def test_a_machine_with_too_few_gpus_or_none_does_not_fit(run_berth: Run) -> None:
    split = document(run_berth, MISTRAL, "--dtype", "fp16", "--tensor-parallel", "4", "--instance", "g5.2xlarge")
    assert (split["instance"]["gpu_short_bytes"], split["instance"]["fits"]) == (None, False)
    none = document(run_berth, "openai-community/gpt2", "--instance", "m7i.2xlarge")["instance"]
    assert (none["gpu"], none["gpu_memory_bytes"], none["fits"]) == (None, None, False)


def test_tokens_beyond_the_context_window_are_noted(run_berth: Run) -> None:
    found = document(run_berth, XL, "--input-tokens", "4000")
    assert any("4,000 tokens exceed the context window of 512" in note for note in found["device"]["notes"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Missing argument 'model'"),
        (("",), "no model given"),
        (("flan-t5-xll",), "unknown model 'flan-t5-xll'"),
        (("flan-t5-xll",), "did you mean google/flan-t5-xl, google/flan-t5-xxl"),
        (("google/flan-t5-xll",), "google/flan-t5-xl"),
        (("nobody/nothing",), "a folder with its config.json"),
        (("./nowhere",), "'./nowhere': no such folder"),
        (("chatgpt",), "openai/gpt-3.5-turbo cannot be deployed"),
        (("chatgpt", "--for", "training"), "openai/gpt-3.5-turbo cannot be deployed"),
        ((XL, "--for", "serving"), "unknown purpose 'serving'"),
        ((XL, "--dtype", "fp12"), "unknown dtype 'fp12'; did you mean fp16, fp32, fp8?; allowed: auto, fp32"),
        ((XL, "--batch", "0"), "batch is 0; it must be a whole number of at least 1"),
        ((XL, "--batch", "-4"), "batch is -4"),
        ((XL, "--batch", "99999999999999999999999"), "no machine serves above 100,000"),
        ((XL, "--batch", "1.5"), "'1.5' is not a valid int"),
        ((XL, "--input-tokens", "0"), "input-tokens is 0"),
        ((XL, "--input-tokens", "1000000000000"), "no machine serves above 100,000,000"),
        ((XL, "--output-tokens", "-1"), "output-tokens is -1; it must not be negative"),
        (("google-bert/bert-base-uncased", "--output-tokens", "5"), "it reads a text and writes none"),
        ((XL, "--tensor-parallel", "0"), "tensor-parallel is 0"),
        ((XL, "--tensor-parallel", "3"), "32 attention heads, which cannot be split over 3 devices"),
        ((XL, "--tensor-parallel", "1000000"), "tensor-parallel is 1000000; at most 1024"),
        ((XL, "--attention", "fast"), "attention is 'fast'; allowed: eager, sdpa, flash"),
        ((XL, "--engine", "tgi"), "unknown engine 'tgi'; known: autoawq"),
        ((XL, "--engine", "vllm"), "vLLM serves decoder-only models"),
        ((XL, "--loading", "teleport"), "unknown way of loading 'teleport'"),
        ((XL, "--instance", "g4dn.huge"), "unknown instance type 'g4dn.huge'; did you mean g4dn."),
        ((XL, "--gpus", "8"), "--gpus is for --for training; leave it out, or ask --for training"),
        ((XL, "--for", "training", "--dtype", "int8"), "--dtype is for --for inference"),
        ((XL, "--for", "training", "--batch", "1"), "--batch is for --for inference"),
        ((XL, "--for", "training", "--base-dtype", "nf4"), "--base-dtype is for --method lora or qlora"),
        ((XL, "--for", "training", "--lora-targets", "q"), "--lora-targets is for --method lora or qlora"),
        ((XL, "--for", "training", "--method", "lora", "--lora-targets", "w_pack"), "w_pack"),
        ((XL, "--for", "training", "--method", "qlora", "--base-dtype", "fp5"), "unknown dtype"),
        ((XL, "--for", "training", "--gradient-accumulation", "0"), "gradient-accumulation-steps is 0"),
        ((XL, "--for", "training", "--method", "magic"), "method is 'magic'; allowed: full, lora, qlora, prompt"),
        ((XL, "--for", "training", "--precision", "fp8"), "precision is 'fp8'"),
        ((XL, "--for", "training", "--micro-batch", "0"), "micro-batch is 0"),
        ((XL, "--for", "training", "--gpus", "100000000000"), "gpus is 100,000,000,000; at most 100,000"),
        ((XL, "--for", "training", "--zero", "7"), "DeepSpeed has stages 0, 1, 2 and 3"),
        ((MISTRAL, "--for", "training", "--output-tokens", "5"), "is decoder-only"),
    ],
)
@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["text", "json"])
def test_a_mistake_is_one_line_and_exit_code_2(
    run_berth: Run, arguments: tuple[str, ...], flags: tuple[str, ...], says: str
) -> None:
    ran = run_berth("memory", *arguments, *flags)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert says in ran.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not JSON"),
        ("[]", "must be a JSON object"),
        ('{"model_type": "gpt2", "n_layer": 12, "n_head": 12, "vocab_size": 50257}', "lacks 'n_embd'"),
        (
            '{"model_type": "gpt2", "n_layer": -1, "n_head": 12, "n_embd": 768, "vocab_size": 50257}',
            "'n_layer' is -1; it must be a whole number of at least 1",
        ),
        (
            '{"model_type": "gpt2", "n_layer": 12, "n_head": 7, "n_embd": 768, "vocab_size": 50257}',
            "cannot be shared out over 7 attention heads",
        ),
    ],
)
def test_a_folder_that_cannot_be_read_is_one_line(run_berth: Run, tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "config.json").write_text(content)
    ran = run_berth("memory", tmp_path, "--json")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert ran.err.startswith(f"berth: {tmp_path}/config.json: ")
    assert says in ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_what_adapters_sit_on_and_how_frozen_weights_stand_change_the_memory(run_berth: Run) -> None:
    def asked(*more: str) -> Any:
        return json.loads(run_berth("memory", MISTRAL, "--for", "training", "--method", "lora", *more, "--json").out)

    plain, everywhere = asked(), asked("--lora-targets", "all-linear")
    some = asked("--lora-targets", "q_proj, v_proj,k_proj,o_proj")
    held = asked("--base-dtype", "int8")
    assert plain["setup"]["base_dtype"] is None
    assert some["setup"]["lora_targets"] == ["q_proj", "v_proj", "k_proj", "o_proj"]
    assert plain["device"]["total_bytes"] < some["device"]["total_bytes"] < everywhere["device"]["total_bytes"]
    assert held["setup"]["base_dtype"] == "int8"
    assert held["device"]["total_bytes"] < plain["device"]["total_bytes"]
    full = ("memory", MISTRAL, "--for", "training", "--gpus", "8", "--zero", "2")
    once = json.loads(run_berth(*full, "--json").out)
    often = json.loads(run_berth(*full, "--gradient-accumulation", "8", "--json").out)
    assert often["setup"]["gradient_accumulation_steps"] == 8
    assert often["assumptions"]["gradient_accumulation_steps"] == 8
    assert often["device"]["total_bytes"] >= once["device"]["total_bytes"]
    shown = run_berth(*full, "--gradient-accumulation", "8")
    assert "8 passes a step" in " ".join(shown.out.split())
