"""The fault table of a machine: for every row it is gone in time, nothing verified is lost, and its status is true."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from model_runtime.watch.clock import instant
from model_runtime.watch.limits import Limits
from model_runtime.watch.status import describe
from tests.model_runtime.watchdog_tools import BUCKET, HOUR, START, URI, World, checkpoint, proxy_to
from tests.moto_server import moto_server

Make = Callable[..., World]


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    with moto_server() as endpoint:
        yield endpoint


@pytest.fixture
def make(moto_url: str, tmp_path: Path) -> Iterator[Make]:
    made: list[World] = []
    s3 = boto3.client("s3", endpoint_url=moto_url)
    s3.create_bucket(Bucket=BUCKET)

    def world(mode: str = "", **given: Any) -> World:
        found = World(tmp_path, moto_url, **given)
        made.append(found)
        if mode:
            found.start(mode)
        return found

    yield world
    for one in made:
        one.close()
    for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        s3.delete_object(Bucket=BUCKET, Key=item["Key"])
    s3.delete_bucket(Bucket=BUCKET)


def ended(world: World) -> tuple[str, str, set[str]]:
    return world.dog.memory.reason, world.dog.memory.halted, world.whole()


def test_a_job_that_is_done_is_brought_home_and_ends_the_machine(make: Make) -> None:
    world = make("succeeds")
    world.run()
    assert ended(world) == ("job-succeeded", "verified", {"artifact"})
    assert world.machine.halted_at is not None and world.machine.halted_at < 120
    assert "because the job was done." in world.say() and f"Verified in S3 (every byte): {URI}/artifact" in world.say()


@pytest.mark.parametrize(
    ("mode", "code", "number", "said"),
    [
        ("fails", 1, None, "The job ended with exit code 1."),
        ("out-of-memory", None, 9, "signal 9: killed: out of memory"),
        ("disk-full", 1, None, "checkpoint-20 is passed over: manifest.json is missing"),
    ],
)
def test_a_job_that_fails_leaves_its_newest_whole_checkpoint(
    make: Make, mode: str, code: int | None, number: int | None, said: str
) -> None:
    world = make(mode)
    world.run()
    assert ended(world) == ("job-failed", "verified", {"checkpoints/checkpoint-10"})
    status = world.status
    assert status is not None
    assert (status.job["exit_code"], status.job["signal"]) == (code, number)
    assert said in world.say()


def test_at_the_expiry_the_job_saves_and_is_home_before_it(make: Make) -> None:
    world = make("saves")
    world.run()
    assert ended(world) == ("expiry", "verified", {"checkpoints/checkpoint-20"})
    assert world.machine.halted_at is not None and world.machine.halted_at < world.expires_in
    assert "stopped with a checkpoint" in world.say()


def test_a_hung_job_idles_the_gpus_and_is_killed(make: Make) -> None:
    world = make("hangs", expires_in=4 * HOUR)
    world.busy = 0.0
    world.run()
    assert ended(world) == ("gpu-idle", "verified", {"checkpoints/checkpoint-10"})
    assert world.machine.halted_at is not None and 1800 <= world.machine.halted_at < 1800 + 600
    assert "Warning: the job did not end in time and was killed" in world.say()


def test_gpus_that_work_now_and_then_or_cannot_be_read_are_not_idle(make: Make) -> None:
    world = make("saves", expires_in=3 * HOUR)
    world.busy = None
    world.clock.at(4000, lambda: setattr(world, "busy", 0.0))
    world.clock.at(5000, lambda: setattr(world, "busy", 60.0))
    world.clock.at(5020, lambda: setattr(world, "busy", 0.0))
    world.clock.at(6700, lambda: setattr(world, "busy", None))
    world.run()
    assert world.dog.memory.reason == "expiry"
    assert "the GPUs' use cannot be read" in world.say()


def test_a_job_that_hangs_in_the_kernel_is_left_behind(make: Make) -> None:
    world = make("hangs")

    class Unkillable(type(world.job)):  # type: ignore[misc]
        def kill(self) -> str:
            return ""

    world.job = Unkillable(world.state)
    world.clock.holds.clear()
    world.run()
    assert ended(world) == ("expiry", "verified", {"checkpoints/checkpoint-10"})
    assert "outlives SIGKILL" in world.say()
    assert world.machine.halted_at is not None and world.machine.halted_at < world.expires_in


def test_a_spot_notice_leaves_time_for_a_checkpoint(make: Make) -> None:
    world = make("saves")
    world.clock.at(600, lambda: setattr(world.metadata, "notice", instant(world.clock.wall() + 120)))
    world.run()
    assert ended(world)[:2] == ("spot-notice", "verified")
    assert "checkpoints/checkpoint-20" in world.whole()
    assert world.machine.halted_at is not None and world.machine.halted_at <= 720


def test_a_spot_notice_in_the_middle_of_a_checkpoint_keeps_the_one_before(make: Make) -> None:
    world = make("in-a-checkpoint")
    world.clock.at(600, lambda: setattr(world.metadata, "notice", instant(world.clock.wall() + 120)))
    world.run()
    assert ended(world) == ("spot-notice", "verified", {"checkpoints/checkpoint-10"})
    assert world.machine.halted_at is not None and world.machine.halted_at <= 720
    assert "AWS took the spot machine back" in world.say()


def test_a_spot_notice_while_the_upload_hangs_does_not_outlast_it(make: Make) -> None:
    world = make("saves")
    world.courier.hang = True
    world.clock.at(600, lambda: setattr(world.metadata, "notice", instant(world.clock.wall() + 120)))
    world.run()
    assert ended(world) == ("spot-notice", "deadline", set())
    assert world.machine.halted_at is not None and world.machine.halted_at <= 725


def test_a_machine_at_risk_brings_home_what_it_has_and_goes_on(make: Make) -> None:
    world = make("saves")
    world.clock.at(60, lambda: setattr(world.metadata, "risk", instant(world.clock.wall())))
    world.run(until=lambda: world.clock.now > 300)
    assert world.dog.memory.phase == "watching" and world.whole() == {"checkpoints/checkpoint-10"}


def test_the_network_is_cut_during_the_upload_and_comes_back(make: Make, moto_url: str) -> None:
    with proxy_to(moto_url, cut_after=60_000) as (proxy, endpoint):
        world = make("fails", endpoint=endpoint, expires_in=2 * HOUR)
        world.run(until=lambda: proxy.cut and world.clock.now > 300)
        assert world.dog.memory.phase == "delivering" and world.machine.halted_at is None
        assert world.whole() == set()
        proxy.mend()
        world.run()
    assert ended(world) == ("job-failed", "verified", {"checkpoints/checkpoint-10"})


def test_the_network_that_stays_cut_holds_the_machine_no_longer_than_its_deadline(make: Make, moto_url: str) -> None:
    with proxy_to(moto_url) as (proxy, endpoint):
        world = make("fails", endpoint=endpoint)
        world.watch()
        world.run(until=lambda: world.status is not None)
        proxy.break_off()
        world.run()
    assert ended(world) == ("job-failed", "deadline", set())
    status = world.status
    assert status is not None and status.phase != "ended"
    assert "It left no last word; what is in S3 must be verified anew." in describe(status, START + 2 * HOUR)[0]


def test_s3_that_refuses_is_asked_until_the_deadline(make: Make) -> None:
    class Refusing(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def refuse(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(0 if self.command == "HEAD" else len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_POST = refuse  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        world = make("fails", endpoint=f"http://127.0.0.1:{server.server_port}", expires_in=1200)
        world.run()
        server.shutdown()
    assert ended(world) == ("job-failed", "deadline", set())
    assert world.dog.memory.delivered is not None
    assert any("AccessDenied" in p for p in world.dog.memory.delivered["problems"])
    assert world.machine.halted_at is not None and world.machine.halted_at > world.expires_in, "it tried to the last"


def test_a_truncated_artifact_is_not_taken_for_the_work(make: Make) -> None:
    world = make("succeeds")
    weights = world.output / "artifact" / "model.safetensors"
    os.truncate(weights, 1000)
    world.run()
    assert ended(world) == ("job-succeeded", "verified", {"checkpoints/checkpoint-10"})
    assert "Problem: artifact: model.safetensors has 1,000 bytes, the manifest says 200,000" in world.say()


def test_an_altered_checkpoint_is_passed_over_for_the_one_before(make: Make) -> None:
    world = make("fails")
    newer = checkpoint(world.output, 20, 5000)
    (newer / "model.safetensors").write_bytes(b"x" + bytes(4999))
    world.run()
    assert ended(world) == ("job-failed", "verified", {"checkpoints/checkpoint-10"})
    assert "checkpoint-20 is passed over: model.safetensors differs" in world.say()


def test_an_object_that_was_altered_in_s3_is_sent_again(make: Make) -> None:
    world = make("fails")
    world.watch()
    world.run(until=lambda: world.dog.memory.phase == "ended")
    place = "output/training/checkpoints/checkpoint-10/model.safetensors"
    label = world.s3.head_object(Bucket=BUCKET, Key=place)["Metadata"]
    world.s3.put_object(Bucket=BUCKET, Key=place, Body=bytes(200_000), Metadata=label)
    assert world.whole() == set()
    world.dog.memory.phase, world.dog.memory.halted = "delivering", ""
    world.run()
    assert ended(world) == ("job-failed", "verified", {"checkpoints/checkpoint-10"})


def test_what_an_earlier_run_left_in_s3_does_not_hold_the_machine(make: Make) -> None:
    world = make("succeeds")
    world.s3.put_object(Bucket=BUCKET, Key="output/training/artifact/model-00002-of-00002.safetensors", Body=b"old")
    world.courier.hang = False
    world.watch()
    world.run(until=lambda: world.dog.memory.phase == "ended")
    assert world.dog.memory.halted == "verified"
    assert world.dog.memory.delivered is not None
    assert "model-00002-of-00002.safetensors is not in the manifest" in world.dog.memory.delivered["problems"][0]


def test_a_job_that_never_wrote_anything_leaves_nothing_and_says_so(make: Make) -> None:
    world = make("fails")
    for file in sorted((world.output / "checkpoints").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    world.run()
    assert ended(world) == ("job-failed", "nothing", set())
    assert "There was no whole checkpoint or artifact on its disk." in world.say()


def test_a_full_disk_silences_the_log_and_not_the_watchdog(make: Make) -> None:
    world = make("saves")
    world.watch()
    for name in ("events.jsonl", "state.json.tmp"):
        (world.folder / "run" / name).unlink(missing_ok=True)
        (world.folder / "run" / name).symlink_to("/dev/full")
    world.run()
    assert ended(world) == ("expiry", "verified", {"checkpoints/checkpoint-20"})
    assert "No space left on device" in world.say()


def test_an_expiry_during_the_upload_lets_it_end_within_the_margin(make: Make) -> None:
    world = make("saves")
    world.courier.hang = True
    world.clock.at(world.expires_in + 60, lambda: setattr(world.courier, "hang", False))
    world.run()
    assert ended(world) == ("expiry", "verified", {"checkpoints/checkpoint-20"})
    assert world.machine.halted_at is not None
    assert world.expires_in < world.machine.halted_at <= world.expires_in + world.limits.margin_s


def test_an_upload_that_hangs_to_the_end_does_not_keep_the_machine(make: Make) -> None:
    world = make("saves")
    world.courier.hang = True
    world.run()
    assert ended(world) == ("expiry", "deadline", set())
    assert world.machine.halted_at is not None
    assert world.machine.halted_at <= world.expires_in + world.limits.margin_s + world.limits.report_s
    assert world.status is None


def test_a_clock_set_back_lengthens_nothing(make: Make) -> None:
    world = make("saves")
    world.clock.at(600, lambda: setattr(world.clock, "set_by", -5 * HOUR))
    world.run()
    assert ended(world) == ("expiry", "verified", {"checkpoints/checkpoint-20"})
    assert world.machine.halted_at is not None and world.machine.halted_at < world.expires_in
    assert "the clock was set back by 18000 s" in world.say()


def test_a_clock_set_forward_ends_the_run_and_loses_nothing(make: Make) -> None:
    world = make("saves", expires_in=4 * HOUR)
    world.clock.at(600, lambda: setattr(world.clock, "set_by", 50 * HOUR))
    world.run()
    assert ended(world) == ("expiry", "verified", {"checkpoints/checkpoint-20"})
    assert world.machine.halted_at is not None and world.machine.halted_at <= 600 + world.limits.rescue_s
    assert "the clock was set forward by 180000 s" in world.say()


def test_without_a_metadata_service_the_expiry_still_ends_the_machine(make: Make) -> None:
    world = make("saves")
    world.metadata.reachable = False
    world.run()
    assert ended(world) == ("expiry", "verified", {"checkpoints/checkpoint-20"})
    assert "the metadata service does not answer" in world.say()


@pytest.mark.parametrize("phase", ["watching", "stopping", "delivering", "ended"])
def test_a_watchdog_that_was_killed_goes_on_where_it_was(make: Make, phase: str) -> None:
    world = make("in-a-checkpoint" if phase == "stopping" else "saves")
    world.watch()
    world.run(until=lambda: world.dog.memory.phase == phase and world.clock.now > 300)
    before = world.dog.memory
    world.clock.set_by = -10 * HOUR  # the successor's clock may be wrong; its state has what was foreseen
    world.watch()
    after = world.dog.memory
    assert (after.phase, after.save_until, after.expiry_monotonic) == (
        phase,
        before.save_until,
        before.expiry_monotonic,
    )
    world.run()
    assert world.dog.memory.halted == "verified"
    assert world.machine.halted_at is not None and world.machine.halted_at < world.expires_in
    assert len(world.machine.armed) == 1, "a successor does not move the dead man's switch"


def test_the_dead_man_s_switch_is_set_before_anything_else_and_moves_with_the_expiry(make: Make) -> None:
    world = make("saves")
    world.watch()
    world.dog.tick()
    assert world.machine.armed == [world.expires_in + world.limits.dead_man_s]
    world.metadata.tag = instant(world.expires + 2 * HOUR)
    world.run(until=lambda: world.clock.now > 300)
    world.expires_in += 2 * HOUR
    assert world.machine.armed[1:] == [world.expires_in + world.limits.dead_man_s]
    world.metadata.tag = "not a moment"
    world.run()
    assert world.machine.halted_at is not None and world.machine.halted_at > 2 * HOUR
    assert ended(world) == ("expiry", "verified", {"checkpoints/checkpoint-20"})


def test_a_halt_that_is_refused_is_asked_for_more_roughly(make: Make) -> None:
    world = make("succeeds")
    world.machine.refuse = 2
    world.run()
    assert [attempt for _, attempt in world.machine.halts] == [0, 1, 2]


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="after dead_man_s"):
        Limits(margin_s=470)
    with pytest.raises(ValueError, match="reserve_s must be less"):
        Limits(reserve_s=700)
    with pytest.raises(ValueError, match="poll_s is 0"):
        Limits(poll_s=0)
