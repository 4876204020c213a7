"""Fine-tuning as it is done: it learns, repeats itself, outlasts kill -9 and full memory, and hands over what loads."""

from __future__ import annotations

import json
import os
import random
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch

from model_runtime.artifacts import verify
from model_runtime.errors import ModelError
from model_runtime.generate import Generator
from model_runtime.load import LoadOptions, load
from model_runtime.manifest import NAME
from model_runtime.tiny import build
from model_runtime.training.checkpoints import FOLDER, all_checkpoints, newest_whole
from model_runtime.training.launch import run
from model_runtime.training.metrics import FILE, Log, Meter, read_metrics
from model_runtime.training.outcome import take_outcome
from tests.model_runtime import training_runs as runs

ALWAYS = 0.00001  # minutes between checkpoints: after every step


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl")


def classes(path: Path) -> Path:
    draw = random.Random(0)
    rows = [{"text": f"{draw.choice(runs.WORDS)} {i}", "label": "odd" if i % 2 else "even"} for i in range(24)]
    return runs.write_rows(path, rows)


def chats(path: Path) -> Path:
    def turn(i: int) -> list[dict[str, str]]:
        word = runs.WORDS[i % len(runs.WORDS)]
        return [
            {"role": "user", "content": f"{word} {i}"},
            {"role": "assistant", "content": runs.pig_latin(word)},
        ]

    return runs.write_rows(path, [{"messages": turn(i)} for i in range(24)])


@pytest.mark.parametrize(
    ("kind", "form", "more"),
    [
        ("t5", "seq2seq", {}),
        ("t5", "seq2seq", {"method": "lora", "lora_rank": 4, "gradient_checkpointing": True}),
        ("llama", "seq2seq", {"method": "lora", "lora_rank": 4}),
        ("llama", "chat", {"method": "qlora", "lora_rank": 4, "learning_rate": 0.02}),
        ("t5", "seq2seq", {"method": "qlora", "lora_rank": 4, "gradient_checkpointing": True}),
        ("bert", "classification", {"method": "qlora", "lora_rank": 4}),
        ("llama", "chat", {"packing": True, "gradient_accumulation_steps": 2, "precision": "bf16"}),
        ("gpt2", "causal", {"packing": True, "schedule": "linear", "max_input_tokens": 60}),
        ("bert", "classification", {}),
        ("bert", "classification", {"method": "lora", "lora_rank": 4}),
    ],
)
def test_every_method_leaves_an_artifact_that_is_whole_and_loads(
    tiny: Any, tmp_path: Path, data: Path, kind: str, form: str, more: dict[str, Any]
) -> None:
    files = {"chat": chats, "classification": classes}
    path = files[form](tmp_path / "d.jsonl") if form in files else data
    if form == "causal":
        path = runs.write_rows(tmp_path / "d.jsonl", [{"text": f"{w} {i}"} for i, w in enumerate(runs.WORDS)])
    # bitsandbytes packs 4-bit weights for CPUs in rows of whole blocks of 64.
    model = build(kind, tmp_path / "m", hidden_size=64) if more.get("method") == "qlora" else tiny(kind)
    chosen = runs.settings(tmp_path / "run", model, path, **more)
    outcome = runs.train(chosen)
    assert outcome.kind == "done", outcome.message
    artifact = Path(outcome.message)
    assert verify(str(artifact)).problems == ()
    assert verify(str(artifact / "model")).problems == (), "a host fetches the model alone"
    assert not list(artifact.rglob("*.bin")), "no pickle is handed over"
    record = json.loads((artifact / "training.json").read_text())
    assert record["result"]["steps"] == max(runs.losses(tmp_path / "run"))
    assert record["data"]["sha256"]["all"]
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert "Licence of the base model | unknown" in (artifact / "README.md").read_text()
    loaded = load(str(artifact / "model"), LoadOptions(device="cpu"))
    generator = Generator(loaded)
    row = generator.prepare("ship")
    if loaded.architecture == "encoder-only":
        assert set(generator.classify([row])[0]) == {"even", "odd"}  # type: ignore[arg-type]
    else:
        assert len(generator.complete([row])) == 1
        assert loaded.model.config.use_cache
    assert (artifact / "adapter").is_dir() == (more.get("method") in ("lora", "qlora"))
    assert "quantization_config" not in json.loads((artifact / "model" / "config.json").read_text())


def test_the_merged_model_says_what_base_and_adapter_say(tiny: Any, tmp_path: Path, data: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    chosen = runs.settings(tmp_path / "r", tiny("llama"), data, method="lora", lora_rank=4, learning_rate=0.05)
    artifact = Path(runs.train(chosen).message)
    ids = torch.tensor([[2, 40, 41, 42]])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft asks transformers by a name of its own
        base = AutoModelForCausalLM.from_pretrained(tiny("llama"))
        before = base(ids).logits
        adapted = PeftModel.from_pretrained(base, artifact / "adapter")(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(artifact / "model")(ids).logits
    assert torch.allclose(merged, adapted, atol=1e-4)
    assert not torch.allclose(merged, before, atol=1e-2)


def test_two_runs_have_one_curve_and_another_seed_another(tiny: Any, tmp_path: Path, data: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        runs.train(runs.settings(tmp_path / name, tiny("t5"), data, seed=seed, epochs=1.0))
    a, b, c = (runs.losses(tmp_path / name) for name in "abc")
    assert a == b
    assert a != c
    assert sorted(a) == list(range(1, len(a) + 1))


def test_the_micro_batch_does_not_change_the_curve(tiny: Any, tmp_path: Path, data: Path) -> None:
    """llama has no dropout, so that only the cut of the batch differs."""
    runs.train(runs.settings(tmp_path / "a", tiny("llama"), data, micro_batch_size=8))
    runs.train(runs.settings(tmp_path / "b", tiny("llama"), data, micro_batch_size=2, gradient_accumulation_steps=4))
    a, b = runs.losses(tmp_path / "a"), runs.losses(tmp_path / "b")
    assert a == pytest.approx(b, abs=2e-4)


def test_after_kill_9_at_random_steps_the_curve_is_that_of_an_uninterrupted_run(
    tiny: Any, tmp_path: Path, data: Path
) -> None:
    """T5 has dropout, so the random states must come back as well as weights, optimizer, schedule and order."""
    whole = runs.settings(tmp_path / "whole", tiny("t5"), data, epochs=4.0)
    runs.train(whole)
    cut = runs.settings(tmp_path / "cut", tiny("t5"), data, epochs=4.0, checkpoint_minutes=ALWAYS)
    steps = max(runs.losses(tmp_path / "whole"))
    draw = random.Random(os.urandom(4))
    at = sorted(draw.sample(range(2, steps // 2), 3))
    for step in at:
        runs.signal_at(cut, step)
        assert not (tmp_path / "cut" / "artifact").exists()
    assert runs.train(cut).kind == "done"
    assert runs.losses(tmp_path / "cut") == pytest.approx(runs.losses(tmp_path / "whole"), abs=1e-6), f"killed at {at}"


def test_on_sigterm_a_checkpoint_is_written_and_the_run_goes_on_from_it(tiny: Any, tmp_path: Path, data: Path) -> None:
    runs.train(runs.settings(tmp_path / "whole", tiny("t5"), data, epochs=4.0))
    chosen = runs.settings(tmp_path / "run", tiny("t5"), data, epochs=4.0)
    runs.signal_at(chosen, 3, signal.SIGTERM)
    outcome = take_outcome(tmp_path / "run")
    assert outcome is not None
    assert (outcome.kind, "with a checkpoint" in outcome.message) == ("interrupted", True)
    newest = newest_whole(tmp_path / "run" / FOLDER, print)
    assert newest is not None
    assert int(newest.name.split("-")[1]) in range(3, 30)
    before = signal.getsignal(signal.SIGTERM)
    assert runs.train(chosen).kind == "done"
    assert signal.getsignal(signal.SIGTERM) == before
    assert runs.losses(tmp_path / "run") == pytest.approx(runs.losses(tmp_path / "whole"), abs=1e-6)


def test_a_damaged_checkpoint_is_passed_over_aloud(
    tiny: Any, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = runs.settings(tmp_path / "r", tiny("t5"), data, checkpoint_minutes=ALWAYS, keep_checkpoints=3)
    runs.signal_at(chosen, 7)
    root = tmp_path / "r" / FOLDER
    newest = newest_whole(root, print)
    assert newest is not None
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    (newest / "optimizer.pt").write_bytes(b"")
    capsys.readouterr()
    assert runs.train(chosen).kind == "done"
    said = capsys.readouterr().out
    assert f"{newest.name} is passed over" in said
    assert "going on from checkpoint-" in said


def test_the_newest_and_the_best_checkpoints_stay(tiny: Any, tmp_path: Path, data: Path) -> None:
    chosen = runs.settings(
        tmp_path / "r", tiny("t5"), data, checkpoint_minutes=ALWAYS, keep_checkpoints=2, validation_share=0.2,
        evaluations=4,
    )  # fmt: skip
    runs.train(chosen)
    there = all_checkpoints(tmp_path / "r" / FOLDER)
    lines = [line for line in read_metrics(tmp_path / "r" / FILE) if line["kind"] == "eval"]
    best = min(lines, key=lambda line: line["loss"])["step"]
    assert best in [int(p.name.split("-")[1]) for p in there]
    assert len(there) <= 3
    assert lines[0]["best"]
    record = json.loads((tmp_path / "r" / "artifact" / "training.json").read_text())
    assert record["result"]["best_step"] == best


def test_training_stops_early_when_the_validation_loss_rises(tiny: Any, tmp_path: Path, data: Path) -> None:
    chosen = runs.settings(
        tmp_path / "r", tiny("t5"), data, epochs=20.0, evaluations=40, patience=2, learning_rate=0.5,
        validation_share=0.2, schedule="constant",
    )  # fmt: skip
    assert runs.train(chosen).kind == "done"
    lines = [line for line in read_metrics(tmp_path / "r" / FILE) if line["kind"] == "eval"]
    assert len(lines) < 40
    assert [line["best"] for line in lines[-2:]] == [False, False]


def test_a_longer_window_where_the_positions_allow_it(tiny: Any, tmp_path: Path) -> None:
    long = runs.write_rows(tmp_path / "d.jsonl", [{"text": f"{i} " + "ship " * 60} for i in range(8)])
    chosen = runs.settings(tmp_path / "r", tiny("llama"), long, context_window=256, epochs=1.0, validation_share=0.0)
    artifact = Path(runs.train(chosen).message)
    config = json.loads((artifact / "model" / "config.json").read_text())
    assert config["max_position_embeddings"] == 256
    assert config["rope_parameters"]["rope_type"] == "linear"
    assert config["rope_parameters"]["factor"] == 2.0
    with pytest.raises(ModelError, match="a table that ends at 128"):
        runs.train(runs.settings(tmp_path / "g", tiny("gpt2"), long, context_window=256))


def test_memory_that_runs_out_halves_the_micro_batch_and_says_so(tiny: Any, tmp_path: Path) -> None:
    long = runs.write_rows(tmp_path / "d.jsonl", [{"text": f"{i} " + "ship harbour " * 40} for i in range(64)])
    said: list[str] = []
    chosen = runs.settings(
        tmp_path / "r", tiny("llama"), long, micro_batch_size=64, epochs=1.0, preflight=True, validation_share=0.0,
        memory_cap_bytes=48 << 20,
    )  # fmt: skip
    outcome = run(chosen, say=said.append, start=runs.copied)
    assert outcome.kind == "done", outcome
    loud = [line for line in said if line.startswith("OUT OF MEMORY")]
    assert "micro-batch 64" in loud[0]
    assert "now 32 with 2 accumulation steps" in loud[0]
    found = json.loads((tmp_path / "r" / "run.json").read_text())
    assert found["micro_batch_size"] < 64
    assert found["micro_batch_size"] * found["gradient_accumulation_steps"] == 64
    measured = json.loads((tmp_path / "r" / "measurement.json").read_text())
    assert measured["run"]["micro_batch_size"] == found["micro_batch_size"]
    assert measured["measured"]["resident_bytes"] > 0
    assert measured["estimate"]["device"]["total_bytes"] > 0
    assert verify(str(tmp_path / "r" / "artifact")).whole


def test_memory_that_not_even_one_example_fits_is_one_line(tmp_path: Path) -> None:
    model = build("llama", tmp_path / "m", context_window=4096)  # 4 heads × 4,096² scores × 4 bytes: 256 MiB
    long = runs.write_rows(tmp_path / "d.jsonl", [{"text": f"{i} " + "ship harbour " * 2000} for i in range(4)])
    chosen = runs.settings(
        tmp_path / "r", model, long, micro_batch_size=2, preflight=True, memory_cap_bytes=32 << 20, attention="eager"
    )
    with pytest.raises(ModelError, match="out of memory with a micro-batch of 1"):
        run(chosen, say=lambda _: None, start=runs.copied)


def test_what_is_wrong_with_the_data_ends_the_run_in_one_line(tiny: Any, tmp_path: Path, data: Path) -> None:
    for kind, path, says in (
        ("bert", data, "a classifier .bert. learns text and label"),
        ("t5", chats(tmp_path / "c.jsonl"), "an encoder-decoder learns from input and target"),
        ("t5", classes(tmp_path / "k.jsonl"), "has no classifier here"),
    ):
        with pytest.raises(ModelError, match=says):
            run(
                runs.settings(tmp_path / f"{path.stem}-{kind}", tiny(kind), path), say=lambda _: None, start=runs.copied
            )


def test_another_batch_in_the_same_folder_is_refused(tiny: Any, tmp_path: Path, data: Path) -> None:
    chosen = runs.settings(tmp_path / "r", tiny("t5"), data, epochs=1.0)
    run(chosen, say=lambda _: None, start=runs.copied)
    with pytest.raises(ModelError, match="begun with a global batch of 4, now it is 8"):
        run(runs.settings(tmp_path / "r", tiny("t5"), data, micro_batch_size=8), say=lambda _: None)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    log = Log(tmp_path, 1, 0.0, None, lambda _: None, lambda _: None)
    log.begin(0)
    with pytest.raises(ModelError, match="the loss is nan at step 3"):
        log.train(3, 9, {"loss": float("nan"), "learning_rate": 0.1}, Meter(), 0)


def test_progress_counts_money_of_earlier_attempts_and_drops_lines_after_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "spent.json").write_text('{"seconds": 3600}')
    lines = [{"kind": "train", "step": n, "loss": 1.0} for n in (1, 2, 3)]
    (tmp_path / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "tr')
    said: list[str] = []
    emitted: list[dict[str, float]] = []
    log = Log(tmp_path, 2, 22.0, 1e12, said.append, emitted.append)
    log.begin(2)
    assert [line["step"] for line in read_metrics(tmp_path / FILE)] == [1, 2]
    log.train(3, 9, {"loss": 0.5, "learning_rate": 0.1, "epoch": 0.5}, Meter(tokens=1000, flops=1e6), 2**30)
    line = read_metrics(tmp_path / FILE)[-1]
    assert line["usd"] == pytest.approx(22.0, abs=0.1)
    assert line["tokens_per_s"] > 0
    assert line["mfu"] is not None
    assert "$22.0" in said[-1]
    assert {"Loss", "TokensPerSecond", "Mfu", "Usd"} == set(emitted[0])
    log.evaluation(3, 9, 0.25, None)
    assert read_metrics(tmp_path / FILE)[-1]["perplexity"] == pytest.approx(1.284, abs=1e-3)


@pytest.fixture
def s3() -> Iterator[Any]:
    from moto import mock_aws

    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="runs-of-a-test")
        yield client


def test_a_new_machine_goes_on_from_s3(s3: Any, tiny: Any, tmp_path: Path, data: Path) -> None:
    uri = "s3://runs-of-a-test/output/training"
    more: dict[str, Any] = {"upload": uri, "checkpoint_minutes": ALWAYS, "keep_checkpoints": 2}
    runs.train(runs.settings(tmp_path / "whole", tiny("t5"), data))
    first = runs.settings(tmp_path / "first", tiny("t5"), data, **more)
    assert runs.train(first).kind == "done"
    assert verify(f"{uri}/artifact", client=s3).whole
    listed = {k["Key"] for k in s3.list_objects_v2(Bucket="runs-of-a-test")["Contents"]}
    kept = sorted({key.split("/")[3] for key in listed if f"/{FOLDER}/" in key}, key=lambda n: int(n.split("-")[1]))
    assert len(kept) == 2, "older checkpoints are thinned out there as well"
    newest = f"output/training/{FOLDER}/{kept[-1]}"
    s3.delete_object(Bucket="runs-of-a-test", Key=f"{newest}/{NAME}")  # an upload that was cut
    second = runs.settings(tmp_path / "second", tiny("t5"), data, **more)
    assert runs.train(second).kind == "done"
    rest = runs.losses(tmp_path / "second")
    whole = runs.losses(tmp_path / "whole")
    assert rest == pytest.approx({step: whole[step] for step in rest}, abs=1e-6)
    assert min(rest) == int(kept[0].split("-")[1]) + 1


def test_a_new_machine_fetches_the_best_checkpoint_as_well_and_hands_it_over(
    s3: Any, tiny: Any, tmp_path: Path, data: Path
) -> None:
    """The loss rises after the first evaluations: the best is older than what the run goes on from."""
    more: dict[str, Any] = {
        "upload": "s3://runs-of-a-test/best", "checkpoint_minutes": ALWAYS, "keep_checkpoints": 1, "evaluations": 6,
        "validation_share": 0.2, "learning_rate": 0.5, "schedule": "constant",
    }  # fmt: skip
    assert runs.train(runs.settings(tmp_path / "first", tiny("t5"), data, **more)).kind == "done"
    evaluations = [line for line in read_metrics(tmp_path / "first" / FILE) if line["kind"] == "eval"]
    best = min(evaluations, key=lambda line: line["loss"])["step"]
    kept = {path.name for path in (tmp_path / "first" / FOLDER).iterdir()}
    assert best < max(line["step"] for line in evaluations)
    assert f"checkpoint-{best}" in kept
    assert runs.train(runs.settings(tmp_path / "second", tiny("t5"), data, **more)).kind == "done"
    first, second = ((tmp_path / name / "artifact" / "model" / "model.safetensors") for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes(), "the best, not the last"
    record = json.loads((tmp_path / "second" / "artifact" / "training.json").read_text())
    assert record["result"]["best_step"] == best
