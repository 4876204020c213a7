"""`berth feedback`: what people said comes down, is joined, read and learnt from; what is damaged is named."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from infra_projects import ENDPOINT, INFERENCE, Project
from jsonschema import Draft202012Validator

import infra.host.user_data
from berth.review.predictions import read_predictions
from berth.schemas import load
from infra.stack_files import read_stack
from infra.uploads.content import serving_settings
from model_runtime.data.read import read_table
from model_runtime.feedback.journal import Journal, ship
from sizing.hardware.load import load_hardware
from sizing.models.resolve import resolve_model
from tests.infra.operations.stack_feedback import REGION, captured, kept, lines, said

Run = Callable[..., Any]
NOW = time.time()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`bucket("requests", b"…")`: put an object below the prefix of the stack `trial` in the artifact bucket."""
    from moto import mock_aws

    with mock_aws():
        account = boto3.client("sts").get_caller_identity()["Account"]
        name = f"berth-{account}-{REGION}-artifacts"
        s3 = boto3.client("s3", region_name=REGION)
        s3.create_bucket(Bucket=name)

        def put(kind: str, data: bytes, key: str = "20261120/part.jsonl") -> None:
            s3.put_object(Bucket=name, Key=f"output/trial/{kind}/{key}", Body=data)

        put.bucket = name  # type: ignore[attr-defined]
        yield put


@pytest.fixture
def told(run_berth: Run) -> Callable[..., dict[str, Any]]:
    def ask(*arguments: Any) -> dict[str, Any]:
        ran = run_berth("feedback", "trial", *arguments, "--json")
        assert (ran.code, ran.err) == (0, "")
        document: dict[str, Any] = json.loads(ran.out)
        Draft202012Validator(load("feedback") | {"additionalProperties": False}).validate(document)
        return document

    return ask


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_host_s_feedback_goes_all_the_way_to_training_data(
    project: Project, bucket: Any, told: Any, tmp_path: Path
) -> None:
    """The runtime's own journal ships it, and what is written opens in review and in the fine-tune's reader."""
    project.write("trial", INFERENCE)
    journal = Journal(tmp_path / "journal")
    journal.append(
        [
            said(1, "r1", NOW - 50, rating=2, comment="Too vague"),
            said(2, "r1", NOW - 40, corrected_answer="The router in room 4 is broken."),
            said(3, "cmpl-r2", NOW - 30, rating=5),
            said(4, "r3", NOW - 20, rating=1),
            said(5, "nobody-kept-it", NOW - 10, rating=4),
        ]
    )
    journal.close()
    ship(journal, f"s3://{bucket.bucket}/output/trial/feedback/", boto3.client("s3"))
    bucket("requests", lines(kept("r1", "Ticket 1", "Something broke."), kept("r2", "Ticket 2", "All is well."),
                             kept("r3", "Ticket 3", "No.")))  # fmt: skip
    found = told("-o", "p.jsonl", "--as-training-data", "t.jsonl", "--review", "r.html")
    assert found["answers"] == {"of": "base", "joined": 3, "unmatched": 1, "several_texts": 0}
    assert (found["records"], found["corrections"], found["comments"]) == (5, 1, 1)
    assert found["ratings"] == {"counts": {"1": 1, "2": 1, "3": 0, "4": 1, "5": 1}, "mean": 3.0}
    assert (found["training"]["corrected"], found["training"]["good"], found["training"]["left_out"]) == (1, 1, 1)
    first, second, _ = read_predictions(tmp_path / "p.jsonl")
    assert (first.id, first.base, first.reference) == ("r1", "Something broke.", "The router in room 4 is broken.")
    assert [f.get("rating") for f in first.feedback] == [2, None]
    assert first.signs == ("rated 2 of 5 by its reader", "corrected by its reader")
    assert second.signs == ()
    table = read_table(str(tmp_path / "t.jsonl"))
    assert [(e.input, e.target) for e in table.examples] == [
        ("Ticket 1", "The router in room 4 is broken."), ("Ticket 2", "All is well."),
    ]  # fmt: skip
    assert table.problems == ()
    assert "Too vague" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_an_endpoint_s_capture_is_joined_in_every_form(
    project: Project, bucket: Any, told: Any, tmp_path: Path
) -> None:
    project.write("trial", {**ENDPOINT, "artifact": "models/own", "capture_percent": 100})
    chat = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Ticket 3"}]}
    openai = {"id": "chatcmpl-own", "choices": [{"message": {"role": "assistant", "content": "Three."}}]}
    bucket(
        "capture",
        lines(
            captured("e1", {"inputs": "Ticket 1"}, {"generated_text": "One.", "details": {}}, "mine"),
            captured("e2", {"prompt": "Ticket 2"}, {"choices": [{"text": "Two."}]}, encoding="JSON"),
            captured("e3", chat, openai),
            captured("e4", {"inputs": ["a", "b"]}, [{"generated_text": "A"}, {"generated_text": "B"}]),
            captured("e5", {"inputs": "Ticket 5"}, {"code": 400, "error": {}}),
        ),
        "berth-trial/main/2026/11/20/10/x.jsonl",
    )
    bucket("feedback", lines(*[said(n, i, NOW, rating=5) for n, i in enumerate(["mine", "e2", "own", "e4", "e5"])]))
    found = told("-o", "p.jsonl", "--as-training-data", "t.jsonl")
    assert found["answers"] == {"of": "tuned", "joined": 3, "unmatched": 1, "several_texts": 1}
    assert (found["requests"]["known"], found["requests"]["bad_lines"]) == (4, 1)
    assert "line 5: the captured output holds no answer" in found["requests"]["bad"][0]
    assert [row.tuned for row in read_predictions(tmp_path / "p.jsonl")] == ["One.", "Two.", "Three."]
    assert rows(tmp_path / "p.jsonl")[2]["input"] == "system: Be brief.\nuser: Ticket 3"
    assert (found["training"]["rows"], found["training"]["conversations"]) == (2, 1)


def test_chats_alone_are_learnt_as_chats(project: Project, bucket: Any, told: Any, tmp_path: Path) -> None:
    project.write("trial", INFERENCE)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"},
                {"role": "user", "content": "Help"}]  # fmt: skip
    bucket("requests", lines(kept("r1", "Help", "No.", messages=messages)))
    bucket("feedback", lines(said(1, "r1", NOW, corrected_answer="Gladly.")))
    told("--as-training-data", "t.jsonl")
    (example,) = read_table(str(tmp_path / "t.jsonl")).examples
    assert (example.form, example.answer, len(example.messages)) == ("chat", "Gladly.", 4)


def test_damaged_lines_are_named_and_the_good_ones_count_once(project: Project, bucket: Any, told: Any) -> None:
    project.write("trial", INFERENCE)
    good = said(1, "r1", NOW, rating=5)
    bucket("feedback", lines(good, b"{", good, said(2, "r1", NOW, rating=9), {"id": "x"}, b"\xff", [1]))
    bucket("feedback", lines(good), "20261120/repeated.jsonl")
    bucket("requests", lines(kept("r1", "T", "A"), {"request_id": "r"}, 7))
    found = told()
    assert (found["records"], found["bad_lines"], found["objects"]) == (1, 5, 2)
    assert [place.split("part.jsonl ")[1].split(":")[0] for place in sorted(found["bad"])] == [
        "line 2", "line 4", "line 5", "line 6", "line 7",
    ]  # fmt: skip
    assert any("rating must be a whole number" in line for line in found["bad"])
    assert (found["requests"]["known"], found["requests"]["bad_lines"]) == (1, 2)


def test_what_is_older_than_asked_for_stays_out(project: Project, bucket: Any, told: Any) -> None:
    project.write("trial", INFERENCE)
    bucket("feedback", lines(said(1, "r1", NOW - 3 * 86400, rating=1), said(2, "r2", NOW - 60, rating=5)))
    assert told("--since", "1d")["ratings"]["mean"] == 5
    assert told("--since", "7d")["records"] == 2


def test_duplicates_are_one_example_and_a_correction_goes_first(
    project: Project, bucket: Any, told: Any, tmp_path: Path
) -> None:
    project.write("trial", INFERENCE)
    bucket("requests", lines(kept("a", "Ticket 1!", "old"), kept("b", "ticket 1", "good"), kept("c", "Ticket  1", "x")))
    bucket(
        "feedback",
        lines(
            said(1, "a", NOW - 9, corrected_answer="first"), said(2, "b", NOW - 8, rating=5),
            said(3, "c", NOW - 7, corrected_answer="second"), said(4, "c", NOW - 6, rating=1),
        ),
    )  # fmt: skip
    found = told("--as-training-data", "t.jsonl")
    assert rows(tmp_path / "t.jsonl") == [{"input": "Ticket  1", "target": "second"}]
    assert (found["training"]["duplicates"], found["training"]["corrected"]) == (2, 1)


def test_one_reader_who_disagrees_keeps_an_answer_out(project: Project, bucket: Any, told: Any) -> None:
    project.write("trial", INFERENCE)
    bucket("requests", lines(kept("a", "T", "A")))
    bucket("feedback", lines(said(1, "a", NOW, rating=5), said(2, "a", NOW, rating=3)))
    assert told()["training"]["left_out"] == 1


def test_requests_from_a_file_and_its_own_names(project: Project, bucket: Any, told: Any, tmp_path: Path) -> None:
    project.write("trial", INFERENCE)
    bucket("feedback", lines(said(1, "a", NOW, rating=5)))
    (tmp_path / "asked.jsonl").write_bytes(lines({"id": "a", "input": "T", "prediction": "A"}))
    assert told("--requests", "asked.jsonl")["answers"]["joined"] == 1


def test_what_cannot_be_done_is_one_line(run_berth: Run, project: Project, bucket: Any) -> None:
    def failed(*arguments: Any) -> str:
        ran = run_berth("feedback", *arguments)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        return str(ran.err)

    project.write("trial", INFERENCE)
    assert "serves nobody" in failed("shared")
    assert "write 90m, 12h, 7d, 2w, a day" in failed("trial", "--since", "yesterday")
    assert "lies in the future" in failed("trial", "--since", "2126-01-01")
    assert "nobody has given feedback on trial since" in failed("trial", "-o", "p.jsonl")
    assert "name one file" in failed("trial", "-o", "a", "--review", "./a")
    assert "the sandbox does not run" in failed("trial", "--sandbox")
    bucket("feedback", lines(said(1, "r1", NOW, rating=5)))
    assert "the requests of none are known (0 in s3://" in failed("trial", "-o", "p.jsonl")
    assert "nowhere.jsonl: there is no such file" in failed("trial", "--requests", "nowhere.jsonl")
    bucket("requests", lines(kept("r1", "T", "A")))
    bucket("feedback", lines(said(1, "r1", NOW, rating=2)))
    assert "nothing to learn from" in failed("trial", "--as-training-data", "t.jsonl")
    assert not [p for p in project.root.iterdir() if p.suffix == ".jsonl"]


def test_a_bucket_that_is_not_there_is_said(run_berth: Run, project: Project) -> None:
    from moto import mock_aws

    project.write("trial", INFERENCE)
    with mock_aws():
        ran = run_berth("feedback", "trial")
    assert ran.code == 2
    assert "artifacts does not exist: bring up the shared stack first" in ran.err


def test_people_read_what_came_down(run_berth: Run, project: Project, bucket: Any) -> None:
    project.write("trial", INFERENCE)
    assert "0 pieces of feedback" in run_berth("feedback", "trial").out
    bucket("feedback", lines(said(1, "r1", NOW, rating=5), b"{"))
    out = run_berth("feedback", "trial").out
    assert "Ratings (1 bad to 5 good): 1 × 5; mean 5.0" in out
    assert "1 lines of feedback cannot be read:" in out
    assert "have requests kept" in out
    bucket("requests", lines(kept("r1", "T", "A")))
    out = run_berth("feedback", "trial", "-o", "p.jsonl", "--as-training-data", "t.jsonl").out
    assert "To learn from: 1 (0 corrected, 1 rated good; 0 duplicates)" in out
    assert "berth review p.jsonl" in out


def test_a_local_journal_and_a_file_of_requests_ask_no_account(project: Project, told: Any, tmp_path: Path) -> None:
    project.write("trial", INFERENCE)
    journal = Journal(tmp_path / "journal")
    journal.append([said(1, "a", NOW, rating=5)])
    journal.close()
    journal.append([said(2, "b", NOW, rating=1)])
    (tmp_path / "asked.jsonl").write_bytes(lines({"id": "a", "input": "T", "answer": "A"}))
    found = told("--from", "journal", "--requests", "asked.jsonl")
    assert (found["records"], found["objects"], found["answers"]["joined"]) == (2, 2, 1)
    assert told("--from", next((tmp_path / "journal").glob("*.jsonl")), "--requests", "asked.jsonl")["records"] == 1


def test_a_journal_that_is_not_there_is_said_before_an_account_is_asked(run_berth: Run, project: Project) -> None:
    project.write("trial", INFERENCE)
    ran = run_berth("feedback", "trial", "--from", "no-folder")
    assert (ran.code, ran.err) == (2, "berth: --from no-folder: there is no such file or folder\n")


def test_a_host_that_captures_has_its_bundle_keep_requests_and_an_endpoint_s_bundle_does_not(project: Project) -> None:
    for values, percent in (({**INFERENCE, "capture_percent": 25}, 25), ({**ENDPOINT, "capture_percent": 25}, 0)):
        project.write("trial", values)
        settings = read_stack("trial", project.root).settings
        made, _ = serving_settings(settings, load_hardware(), resolve_model, {})
        assert made.request_log_percent == percent
    script = (Path(infra.host.user_data.__file__).parent / "inference.sh").read_text(encoding="utf-8")
    assert "--env BERTH_BUCKET --env BERTH_OUTPUT" in script
