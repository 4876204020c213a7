"""The service: a bad item beside good ones, memory that runs out, a model that raises, streams, metric lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from model_runtime.generate import Generator
from model_runtime.handler.answers import Reply
from model_runtime.handler.emf import MAX_VALUES, UNITS, emf_line, writer
from model_runtime.handler.service import Service
from model_runtime.handler.settings import ServingSettings
from model_runtime.load import LoadOptions, load


@pytest.fixture(scope="module")
def service(tiny: Callable[[str], Path]) -> Callable[[str], Service]:
    made: dict[str, Service] = {}

    def get(kind: str) -> Service:
        if kind not in made:
            settings = ServingSettings(str(tiny(kind)), model_name=f"tiny-{kind}", max_output_tokens=16, batch_size=4)
            loaded = load(settings.model, LoadOptions(device="cpu"))
            made[kind] = Service(Generator(loaded, settings.limits), settings, write=lambda _: None)
        return made[kind]

    return get


def body(**what: Any) -> bytes:
    return json.dumps(what).encode()


HOSTILE = (
    b"", b"{", b"\xff", b"[1]", b'"text"', b'{"inputs": 7}', b'{"inputs": ""}', b'{"inputs": "\\ud800"}',
    b'{"inputs": "a", "parameters": {"temperature": "hot"}}', b'{"inputs": "a", "unknown": 1}',
    b'{"inputs": "' + b"x" * 10_000_000 + b'"}', b'{"inputs": "a", "parameters": {"max_new_tokens": 1e99}}',
)  # fmt: skip


@pytest.mark.parametrize("kind", ["t5", "llama", "gpt2", "bert"])
def test_bad_items_get_errors_and_their_neighbours_their_answers(service: Any, kind: str) -> None:
    good = [body(inputs="The ship"), body(inputs="a\0\x07\x1b[31m b")]
    alone = [service(kind).answer([g])[0].body for g in good]
    replies = service(kind).answer([good[0], *HOSTILE, good[1]])
    assert len(replies) == len(HOSTILE) + 2
    assert [r.status for r in replies[1:-1]] == [400 if len(h) < 1000 else 413 for h in HOSTILE]
    assert all(set(r.body["error"]) == {"message", "type", "code", "param"} for r in replies[1:-1])
    for reply, expected in zip((replies[0], replies[-1]), alone, strict=True):
        assert reply.status == 200
        if kind == "bert":
            assert [x["label"] for x in reply.body] == [x["label"] for x in expected]
        else:
            assert reply.body == expected
    assert all(json.loads(r.encode()) == r.body for r in replies)


def test_the_native_answer_has_its_details(service: Any) -> None:
    reply = service("llama").answer([body(inputs=["ab " * 400, "The ship"], parameters={"max_new_tokens": 4})])[0]
    first, second = reply.body
    assert first["details"]["truncated_tokens"] > 0
    assert second["details"] == {
        "finish_reason": "length",
        "prompt_tokens": len(service("llama").generator.tokenizer("The ship").input_ids),
        "generated_tokens": 4,
        "truncated_tokens": 0,
    }


def test_a_chat_answer_has_openai_s_shape(service: Any) -> None:
    asked = body(messages=[{"role": "user", "content": "Hi"}], n=2, temperature=1.5, seed=3, max_tokens=5)
    answer = service("llama").answer([asked])[0].body
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "tiny-llama"
    assert answer["id"].startswith("chatcmpl-")
    assert [c["index"] for c in answer["choices"]] == [0, 1]
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["choices"][0]["message"]["content"] != answer["choices"][1]["message"]["content"]
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] <= 10
    assert service("llama").answer([asked])[0].body["choices"] == answer["choices"]


def test_a_chat_that_does_not_fit_is_refused_not_cut(service: Any) -> None:
    reply = service("llama").answer([body(messages=[{"role": "user", "content": "ab " * 400}])])[0]
    assert (reply.status, reply.body["error"]["code"]) == (400, "context_length_exceeded")


def test_labels_come_best_first(service: Any) -> None:
    one = service("bert").answer([body(inputs="The ship", parameters={"top_k": 2})])[0].body
    assert len(one) == 2
    assert one[0]["score"] >= one[1]["score"]
    assert len(service("bert").answer([body(inputs=["a", "b"])])[0].body) == 2


class Failing:
    """A real model that raises what `error` makes for a batch in which the text stands that `marks` it."""

    def __init__(self, model: Any, marks: int, error: Callable[[], Exception]) -> None:
        self._model, self.marks, self.error = model, marks, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, **arguments: Any) -> Any:
        if (arguments["input_ids"] == self.marks).any():
            raise self.error()
        return self._model.generate(**arguments)


def failing(service: Service, error: Callable[[], Exception]) -> Service:
    generator = Generator(service.generator.loaded, service.settings.limits)
    marks = generator.tokenizer("~", add_special_tokens=False).input_ids[0]
    generator.model = Failing(service.generator.model, marks, error)
    return Service(generator, service.settings, write=lambda _: None)


def test_a_model_that_raises_on_one_input_fails_that_input_only(service: Any, caplog: Any) -> None:
    s = failing(service("llama"), lambda: IndexError("index out of range in self"))
    replies = s.answer([body(inputs="The ship"), body(inputs="~"), body(inputs="1 2 3")])
    assert [r.status for r in replies] == [200, 500, 200]
    assert replies[1].body["error"]["code"] == "internal_error"
    assert "index out of range" in caplog.text
    assert not s.broken


def test_memory_that_runs_out_for_one_input_is_a_503_for_that_one(service: Any) -> None:
    s = failing(service("llama"), lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    replies = s.answer([body(inputs="The ship"), body(inputs="~"), body(inputs="1 2 3"), body(inputs="é")])
    assert [r.status for r in replies] == [200, 503, 200, 200]
    assert replies[1].body["error"]["code"] == "out_of_memory"
    assert s.generator.memory_splits == 3


def test_a_lost_device_is_said_and_nothing_is_tried_on_it_again(service: Any) -> None:
    s = failing(service("llama"), lambda: RuntimeError("CUDA error: device-side assert triggered"))
    assert [r.status for r in s.answer([body(inputs="~"), body(inputs="a")])] == [500, 500]
    assert s.broken
    assert [r.status for r in s.answer([body(inputs="a")])] == [503]


@pytest.mark.parametrize("form", ["native", "chat", "completions"])
def test_a_stream_holds_the_whole_answer(service: Any, form: str) -> None:
    s = service("llama")
    asked: dict[str, Any] = {
        "native": {"inputs": "The ship"},
        "chat": {"messages": [{"role": "user", "content": "The ship"}], "stream_options": {"include_usage": True}},
        "completions": {"prompt": "The ship"},
    }[form]
    whole = s.answer([body(**asked)])[0].body
    pieces: SimpleQueue[Any] = SimpleQueue()

    def on_piece(index: int, text: str) -> bool:
        pieces.put((index, text))
        return True

    job = s.prepare(body(**asked, stream=True), on_piece=on_piece)
    raw = b"".join(s.stream(job, pieces)).decode()
    if form == "native":
        lines = [json.loads(line) for line in raw.splitlines()]
        assert "".join(line["token"]["text"] for line in lines) == whole["generated_text"]
        assert lines[-1]["details"] == whole["details"]
        assert len(lines) > 3
        return
    events = [e.removeprefix("data: ") for e in raw.split("\n\n") if e]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(e) for e in events[:-1]]
    choices = [c["choices"][0] for c in chunks if c["choices"]]
    if form == "chat":
        assert choices[0]["delta"]["role"] == "assistant"
        assert "".join(c["delta"].get("content", "") for c in choices) == whole["choices"][0]["message"]["content"]
        assert chunks[-1]["usage"] == whole["usage"]
    else:
        assert "".join(c["text"] for c in choices) == whole["choices"][0]["text"]
    assert choices[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]


def test_a_batch_leaves_one_line_of_metrics(service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    s = service("llama")
    measured = Service(s.generator, s.settings, write=lines.append)
    monkeypatch.setenv("BERTH_STACK", "inference-dev")
    jobs = [measured.prepare(b, received=0.0) for b in (body(inputs="The ship"), b"{", body(inputs="ab " * 400))]
    measured.run(jobs)
    (line,) = lines
    document = json.loads(line)
    declared = document["_aws"]["CloudWatchMetrics"][0]
    assert declared["Dimensions"] == [["Stack"], ["Stack", "Model"]]
    assert document["Stack"] == "inference-dev"
    for metric in declared["Metrics"]:
        assert metric["Unit"] == UNITS[metric["Name"]]
        assert metric["Name"] in document
    assert len(document["Latency"]) == len(document["QueueTime"]) == 3
    assert (document["BatchSize"], document["Errors"], document["ServerErrors"], document["Truncations"]) == (
        3,
        1,
        0,
        1,
    )
    assert document["OutputTokens"] == sum(d.output_tokens for j in jobs for d in j.done)


def test_metric_lines_are_bounded_and_never_fail_a_request(tmp_path: Path, caplog: Any) -> None:
    document = json.loads(emf_line({"Latency": [1.0] * 500, "QueueTime": []}, namespace="N", model="m", now=1.5))
    assert len(document["Latency"]) == MAX_VALUES
    assert "QueueTime" not in document
    assert document["_aws"]["Timestamp"] == 1500
    path = tmp_path / "metrics.log"
    writer(str(path))("a")
    writer(str(path))("b")
    assert path.read_text() == "a\nb\n"
    writer(str(tmp_path / "nowhere" / "m.log"))("a")
    assert "a line of metrics is lost" in caplog.text


def test_an_error_has_one_shape_for_every_client() -> None:
    from model_runtime.handler.answers import error_reply
    from model_runtime.parameters import RequestError

    reply = error_reply(RequestError("no", status=503, code="busy", retry_after_s=2))
    assert reply == Reply(
        503, {"code": 503, "error": {"message": "no", "type": "server_error", "code": "busy", "param": None}}, 2
    )
