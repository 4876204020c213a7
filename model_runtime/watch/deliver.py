"""Brings a run's work to S3 and proves that it is there: `python -m model_runtime.watch.deliver deliver OUTPUT URI`.

The watchdog starts it as a process of its own. The last line on stdout is the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_runtime.artifacts import Verified, upload, verify
from model_runtime.errors import ModelError
from model_runtime.fetch import split_s3
from model_runtime.manifest import NAME, Entry, parse_manifest, sha256_of
from model_runtime.training.checkpoints import FOLDER as CHECKPOINTS
from model_runtime.training.checkpoints import newest_whole
from model_runtime.watch.courier import Delivery
from model_runtime.watch.status import EVENTS, METRICS, STATUS

ARTIFACT = "artifact"
"""The folder of a finished run under its output."""
_BYTES_A_SECOND = 80e6
"""At which S3 is read back by one reader; slower than any machine with a GPU, so that time is not overestimated."""
_MOST_PROBLEMS = 20
METRICS_FILE = "metrics.jsonl"
_MOST_METRICS = 1 << 20
"""Bytes of the run's metrics that go with a status: the newest lines of a long run."""


def deliver(
    output: Path,
    uri: str,
    seconds: float,
    *,
    client: Any,
    now: Callable[[], float] = time.monotonic,
    wait: Callable[[float], Any] = time.sleep,
) -> Delivery:
    """Upload the whole artifact, else the newest whole checkpoint, and hold S3 against its manifest.

    A damaged folder is never uploaded. Every byte is read back where `seconds` allow it; otherwise sizes are compared,
    and S3 has held each part against its checksum. Objects that the manifest does not name (of an earlier run) are
    said and do no harm. Raises `ModelError` where S3 refuses.
    """
    until = now() + seconds
    passed: list[str] = []
    folder, place = _whole(output, passed)
    if folder is None:
        return Delivery("nothing", problems=tuple(passed[:_MOST_PROBLEMS]))
    target = f"{uri.rstrip('/')}/{place}"
    entries = parse_manifest((folder / NAME).read_text(encoding="utf-8"), str(folder / NAME))
    size = sum(entry.size_bytes for entry in entries)
    upload(folder, target, client=client, wait=wait)
    thorough = size / _BYTES_A_SECOND < (until - now()) / 2
    found = verify(target, client=client, sizes_only=not thorough)
    if damaged := _damaged(found, entries):
        _send_anew(damaged, folder, target, client)
        found = verify(target, client=client, sizes_only=not thorough)
    about = [f"{place}: {problem}" for problem in found.problems]
    problems = tuple([*about, *passed][:_MOST_PROBLEMS])
    if _damaged(found, entries) or found.manifest_sha256 != sha256_of(folder / NAME):
        return Delivery("failed", problems=problems or (f"{place}: {NAME} in S3 is another",))
    item = {
        "what": place,
        "location": target,
        "manifest_sha256": found.manifest_sha256,
        "bytes": size,
        "checked": "every byte" if thorough else "sizes, and S3's checksums of the parts",
    }
    return Delivery("verified", (item,), problems)


def _damaged(found: Verified, entries: tuple[Entry, ...]) -> list[Entry]:
    """Entries of which S3 holds nothing, or something else."""
    return [
        e
        for e in entries
        if any(p.startswith((f"{e.path} has ", f"{e.path} is missing", f"{e.path} differs")) for p in found.problems)
    ]


def _send_anew(entries: list[Entry], folder: Path, target: str, client: Any) -> None:
    """Over what stands there under the same name, which `upload` takes for the same by its label."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, prefix = split_s3(target)
    for entry in entries:
        extra = {"Metadata": {"sha256": entry.sha256}, "ChecksumAlgorithm": "SHA256"}
        try:
            client.upload_file(str(folder / entry.path), bucket, prefix + entry.path, ExtraArgs=extra)
        except (Boto3Error, BotoCoreError, ClientError) as error:
            raise ModelError(f"{target}/{entry.path} was not taken: {error}") from error


def _whole(output: Path, passed: list[str]) -> tuple[Path | None, str]:
    """What is to be delivered, and its place under the output; why other things were not goes into `passed`."""
    artifact = output / ARTIFACT
    if artifact.is_dir():
        found = verify(str(artifact))
        if found.whole:
            return artifact, ARTIFACT
        passed += [f"{ARTIFACT}: {problem}" for problem in found.problems]
    checkpoint = newest_whole(output / CHECKPOINTS, passed.append)
    return checkpoint, "" if checkpoint is None else f"{CHECKPOINTS}/{checkpoint.name}"


def report(uri: str, words: dict[str, Any], *, client: Any, output: Path | None = None) -> Delivery:
    """Put the status, the log of events and the metrics of the run's folder `output` (where there are such) under
    `uri`/watchdog. Raises `ModelError` where S3 refuses."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, prefix = split_s3(uri)
    lines = "".join(json.dumps(event) + "\n" for event in words["events"])
    metrics = b"" if output is None else _metrics(output / METRICS_FILE)
    try:
        if metrics:
            client.put_object(Bucket=bucket, Key=prefix + METRICS, Body=metrics, ContentType="application/jsonl")
        client.put_object(Bucket=bucket, Key=prefix + EVENTS, Body=lines.encode(), ContentType="application/jsonl")
        # The status last: who reads it finds the log that belongs to it.
        body = (json.dumps(words["status"], indent=1) + "\n").encode()
        client.put_object(Bucket=bucket, Key=prefix + STATUS, Body=body, ContentType="application/json")
    except (BotoCoreError, ClientError) as error:
        raise ModelError(f"{uri}: {error}") from error
    return Delivery("verified")


def _metrics(path: Path) -> bytes:
    """The newest whole lines, empty where there are none: a disk that cannot be read silences no status."""
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, 2) - _MOST_METRICS)
            file.seek(start)
            found = file.read(_MOST_METRICS)
    except OSError:
        return b""
    if start:
        found = found.partition(b"\n")[2]
    return found[: found.rfind(b"\n") + 1]


def s3_client() -> Any:
    """A client that gives up soon: the watchdog starts anew, and what arrived is not sent again."""
    import boto3
    from botocore.config import Config

    retries = {"mode": "standard", "max_attempts": 3}
    config = Config(connect_timeout=5, read_timeout=20, retries=retries, max_pool_connections=16)  # type: ignore[arg-type]
    return boto3.client("s3", config=config)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m model_runtime.watch.deliver", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    work = commands.add_parser("deliver", help="upload and verify the artifact or the newest whole checkpoint")
    work.add_argument("output", type=Path, help="the run's output folder")
    work.add_argument("uri", help="s3://BUCKET/PREFIX that stands for it")
    work.add_argument("--seconds", type=float, default=600.0, help="there is this much time (default 600)")
    words = commands.add_parser("report", help="put the status and events that come on stdin")
    words.add_argument("uri", help="s3://BUCKET/PREFIX of the run")
    words.add_argument("--output", type=Path, help="the run's output folder, whose metrics go with them")
    given = parser.parse_args(arguments)
    try:
        if given.command == "deliver":
            found = deliver(given.output, given.uri, given.seconds, client=s3_client())
        else:
            found = report(given.uri, json.load(sys.stdin), client=s3_client(), output=given.output)
    except (ModelError, OSError) as error:
        found = Delivery("failed", problems=(str(error),))
    sys.stdout.write(json.dumps(found.to_json()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
