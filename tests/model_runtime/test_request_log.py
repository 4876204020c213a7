"""The request log: off unless asked for, a share by id, the words as they were sent, never in a request's way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model_runtime.errors import ModelError
from model_runtime.feedback.journal import Journal
from model_runtime.generate import Generator
from model_runtime.handler.request_log import RequestLog, is_sampled, open_log, place_of
from model_runtime.handler.service import Service
from model_runtime.handler.settings import ServingSettings, parse_properties, read_properties, render
from model_runtime.load import LoadOptions, load


@pytest.fixture
def served(tiny: Callable[[str], Path], tmp_path: Path) -> Callable[..., tuple[Service, Journal]]:
    def made(kind: str, percent: int = 100) -> tuple[Service, Journal]:
        settings = ServingSettings(str(tiny(kind)), model_name="trial", max_output_tokens=8)
        journal = Journal(tmp_path / "log")
        log = RequestLog(journal, percent, "trial", clock=lambda: 7.0)
        loaded = load(settings.model, LoadOptions(device="cpu"))
        return Service(Generator(loaded, settings.limits), settings, lambda _: None, log), journal

    return made


def body(**what: Any) -> bytes:
    return json.dumps(what).encode()


def kept(journal: Journal) -> list[dict[str, Any]]:
    journal.close()
    return [json.loads(line) for p in journal.closed() for line in p.read_text("utf-8").splitlines()]


def test_what_was_asked_and_answered_is_kept_under_the_request_s_id(served: Any) -> None:
    service, journal = served("llama")
    jobs = [
        service.prepare(body(inputs="Das Schiff – 船"), request_id="r-1"),
        service.prepare(b"{", request_id="refused"),
        service.prepare(body(inputs=["a", "b"]), request_id="r-2"),
        service.prepare(body(messages=[{"role": "user", "content": "Hi"}], n=2), request_id="r-3"),
    ]
    service.run(jobs)
    one, two, three = kept(journal)
    assert (one["request_id"], one["time"], one["model"], one["inputs"]) == ("r-1", 7.0, "trial", ["Das Schiff – 船"])
    assert one["answers"] == [[jobs[0].reply.body["generated_text"]]]
    assert [two["inputs"], len(two["answers"])] == [["a", "b"], 2]
    assert three["messages"] == [{"role": "user", "content": "Hi"}]
    assert [len(answers) for answers in three["answers"]] == [2]


def test_a_classifier_s_best_label_is_its_answer(served: Any) -> None:
    service, journal = served("bert")
    (reply,) = service.answer([body(inputs="good")])
    assert [record["answers"] for record in kept(journal)] == [[[reply.body[0]["label"]]]]


def test_a_share_is_drawn_by_the_id_alone() -> None:
    ids = [f"request-{n}" for n in range(4000)]
    drawn = [i for i in ids if is_sampled(i, 25)]
    assert 0.22 < len(drawn) / len(ids) < 0.28
    assert set(drawn) <= {i for i in ids if is_sampled(i, 50)}
    assert [i for i in ids if is_sampled(i, 0)] == []
    assert all(is_sampled(i, 100) for i in ids)


def test_a_disk_that_takes_nothing_fails_no_request(served: Any, caplog: pytest.LogCaptureFixture) -> None:
    service, journal = served("llama")

    class Full(Journal):
        def append(self, records: Any) -> None:
            raise OSError(28, f"No space left for {len(records)}")

    service.request_log.journal = Full(journal.folder)
    (reply,) = service.answer([body(inputs="The ship")])
    assert reply.ok
    assert "1 requests are not kept" in caplog.text


def test_it_is_off_by_default_and_its_settings_survive_the_file(tmp_path: Path) -> None:
    settings = ServingSettings("m")
    assert open_log(settings) is None
    asked = replace(settings, request_log_percent=5, request_log_dir=str(tmp_path / "log"))
    assert read_properties(parse_properties(render(asked))) == asked
    assert open_log(asked) is not None
    with pytest.raises(ModelError, match="request_log_percent is 101"):
        replace(settings, request_log_percent=101)
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        open_log(replace(asked, request_log_dir=str(tmp_path / "file" / "log")))


def test_a_host_ships_it_below_what_its_stack_may_write() -> None:
    host = {"BERTH_BUCKET": "artifacts", "BERTH_OUTPUT": "output/trial"}
    assert place_of(ServingSettings("m"), host) == "s3://artifacts/output/trial/requests"
    assert place_of(ServingSettings("m", request_log_uri="s3://own/logs"), host) == "s3://own/logs"
    assert place_of(ServingSettings("m"), {}) == ""
