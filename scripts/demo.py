"""The whole story on this machine with no account: from the need to a machine and its bill, served, tuned, and gone.

Run by `make demo`. Everything is done by the commands that a person would type, in a project of its own under
`build/demo`, with a cache and a local AWS of its own. Stops at the first command that fails, with its exit code; what
was started is ended then, and at Ctrl-C.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "demo"
STACK = "inference-dev"
READY_SECONDS, END_SECONDS = 180.0, 20.0
INTERRUPTED = 130
MARK = "BERTH_DEMO"
"""Environment variable by which all that a demo has started is known, whatever session it is in."""


@dataclass(frozen=True)
class Step:
    """One command with the reason for it. `background`: it goes on while the others run."""

    why: str
    line: str
    background: bool = False


def steps(port: int) -> tuple[Step, ...]:
    """What is done, in order; the local model server listens on `port`."""
    url = f"http://127.0.0.1:{port}"
    return (
        Step(
            "A team wants its support tickets summarized, in English and German, 5,000 a day, each within 5 seconds.\n"
            "Is a large language model needed for that? Its answers stand in docs/support-tickets.json.",
            "berth assess --answers docs/support-tickets.json",
        ),
        Step("The same for machines, for the report at the end.",
             f"berth assess --answers docs/support-tickets.json --json > reports/{STACK}/assess.json"),
        Step(
            "Which open encoder-decoder models summarize and may be used in business? The smallest comes first.",
            "berth models --task summarization --licence business --architecture encoder-decoder --max-params 3B",
        ),
        Step(
            "How much memory does FLAN-T5-XL take in 32 bit, and for what?",
            "berth memory google/flan-t5-xl --dtype fp32",
        ),
        Step(
            "On which machine does FLAN-T5-XL run in 32 bit, and what does that cost? What was refused has its reason.",
            "berth size google/flan-t5-xl --dtype fp32 --region us-east-1",
        ),
        Step(
            f"That machine as a stack, {STACK}, in office hours: what would be made, and its bill line by line.",
            f"berth preview {STACK} --no-resources --offline",
        ),
        Step(
            "From here on moto plays AWS on 127.0.0.1: nothing costs. First what outlives machines: bucket, key, logs.",
            "berth up shared --sandbox --yes",
        ),
        Step(
            "FLAN-T5-XL is 11 GB. In its place: a T5 of the same kind, 2 layers small, with random weights. What it\n"
            "answers means nothing; that it is fetched, loaded, batched and measured is the real thing.",
            "python -m model_runtime.tiny t5 tiny-t5",
        ),
        Step(
            "What the stack's host will run, with the stack's settings, and the model: into the stack's bucket.",
            f"berth bundle {STACK} --upload --sandbox --model-folder tiny-t5",
        ),
        Step("The stack itself, under moto: a host that knows both manifests, its guard, its alarms.",
             f"berth up {STACK} --sandbox --yes"),
        Step(
            "moto runs no machine, so this one stands in for the GPU host: it fetches bundle and model from the\n"
            "bucket, holds every byte against the manifests that the stack records, and serves, in the background.",
            f"berth serve {STACK} --sandbox --port {port}",
            background=True,
        ),
        Step(
            "Latency and throughput as its callers have them: of the tiny model, on this machine's CPU. What is said\n"
            "at the end of FLAN-T5-XL on its GPU is the estimate, and nothing here checks it.",
            f"berth verify {STACK} --sandbox --url {url} --input-tokens 24 --output-tokens 16 --requests 8 --runs 1 "
            f"--max-concurrency 4 --report reports/{STACK}/verify.json",
        ),
        Step(
            "Fine-tune it for some steps: a training node under moto, its job as processes here, under the watchdog\n"
            "that ends the real one. The artifact is verified in S3, then the node goes. The tickets are made up.",
            "berth train training --data tickets.jsonl --sandbox --yes",
        ),
        Step("The artifact, brought here and checked.", "berth fetch training --sandbox --out artifact"),
        Step(
            "The tuned model beside its base, on tickets that it never saw. (A minute of training teaches a random\n"
            "model little: look at the perplexity.)",
            "berth evaluate artifact --data tickets.jsonl --split artifact/split.json --base tiny-t5 "
            f"--output-tokens 16 --out reports/{STACK}/evaluation",
        ),
        Step(
            "One page for those who decide. It says of itself that it is tentative: nothing was measured on the GPU.",
            f"berth report {STACK} --also-called tiny-t5 --title 'Demo: FLAN-T5-XL planned, a tiny T5 measured' "
            "--output report.html",
        ),
        Step("Down again: what goes, what it would have cost.", f"berth down {STACK} --sandbox --yes"),
        Step("And all the rest. Listed by their tags, nothing may be left.", "berth sandbox down"),
        Step("Nothing runs.", "berth sandbox status"),
    )  # fmt: skip


class FailedError(Exception):
    """A command that ended with `code`."""

    def __init__(self, line: str, code: int, said: str = "") -> None:
        super().__init__(said or f"`{line}` ended with exit code {code}")
        self.code = code


class Demo:
    """Runs steps one after the other; `end` leaves nothing running."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = f"{os.getpid()}-{time.time_ns()}"
        self.environ = {
            **os.environ,
            MARK: self.mark,
            "BERTH_CACHE_DIR": str(folder / "cache"),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            # Nothing is asked of a hub or an account, and libraries keep quiet about what is no fault.
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "DS_ACCELERATOR": "cpu",
        }
        self.served: subprocess.Popen[bytes] | None = None
        self.began = time.monotonic()

    def prepare(self) -> None:
        """A fresh project: the committed stacks, the team's answers, made-up tickets."""
        if self.folder.exists():
            self._end_sandbox()  # of a demo that was killed
            shutil.rmtree(self.folder)
        (self.folder / "reports" / STACK).mkdir(parents=True)
        shutil.copy(ROOT / "Pulumi.yaml", self.folder)
        shutil.copytree(ROOT / "stacks", self.folder / "stacks")
        (self.folder / "docs").mkdir()
        shutil.copy(ROOT / "docs" / "support-tickets.json", self.folder / "docs")
        rows = "".join(json.dumps(row) + "\n" for row in tickets())
        (self.folder / "tickets.jsonl").write_text(rows, encoding="utf-8")

    def run(self, number: int, count: int, step: Step, port: int) -> None:
        say(f"\n[{number}/{count}] {step.why}\n\n$ {step.line}{' &' if step.background else ''}\n")
        began = time.monotonic()
        if step.background:
            self._serve(step.line, port)
        else:
            command, _, target = step.line.partition(" > ")
            code = self._call(shlex.split(command), self.folder / target if target else None)
            if code != 0:
                raise FailedError(step.line, code)
        now = time.monotonic()
        say(f"\n({now - began:.1f} s; {_minutes(now - self.began)} so far)")

    def end(self) -> None:
        """End what the demo has started, whatever state it is in."""
        if self.served is not None:
            _stop(self.served)
            self.served = None
        self._end_sandbox()
        from infra.sandbox.node import MARK as NODE
        from infra.sandbox.node_process import kill_marked

        for node in (self.folder / "cache" / "sandbox" / "nodes").glob("*/*"):
            kill_marked(NODE, str(node))  # a stand-in would find out by itself that its AWS is gone, a little later
        kill_marked(MARK, self.mark)

    def stop_serving(self) -> None:
        """Drain the model server, as the end of its host would."""
        if self.served is None:
            return
        if (code := self.served.poll()) is not None:
            raise FailedError("berth serve", code or 1, "the model server ended by itself")
        say("\nThe model server drains and ends, as its host would.")
        _stop(self.served)
        self.served = None

    def _call(self, command: list[str], target: Path | None = None) -> int:
        if target is None:
            ran = subprocess.Popen(command, cwd=self.folder, env=self.environ, stdin=subprocess.DEVNULL)
        else:
            with target.open("wb") as out:
                ran = subprocess.Popen(command, cwd=self.folder, env=self.environ, stdin=subprocess.DEVNULL, stdout=out)
        try:
            return ran.wait()
        except BaseException:
            _stop(ran)
            raise

    def _serve(self, line: str, port: int) -> None:
        """Start the server, wait until it is healthy, and ask it once."""
        self.served = subprocess.Popen(shlex.split(line), cwd=self.folder, env=self.environ, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(port):
            if (code := self.served.poll()) is not None:
                raise FailedError(line, code or 1)
            if time.monotonic() > deadline:
                raise FailedError(line, 1, f"`{line}` was not ready within {READY_SECONDS:.0f} s")
            time.sleep(0.2)
        body = '{"inputs": "Summarize: the parcel has not arrived.", "parameters": {"max_new_tokens": 12}}'
        say(f"\n$ curl -d '{body}' http://127.0.0.1:{port}/invocations\n{_ask(port, body)}")

    def _end_sandbox(self) -> None:
        if not (self.folder / "cache" / "sandbox").is_dir():
            return
        command = [sys.executable, "-m", "berth", "sandbox", "down", "--force"]
        subprocess.run(command, cwd=ROOT, env=self.environ, check=False, stdout=subprocess.DEVNULL)


def tickets(count: int = 160) -> list[dict[str, str]]:
    """Made-up support tickets and their summaries; the same each time."""
    chosen = random.Random(0)  # noqa: S311 (no secret)
    things = ("parcel", "invoice", "router", "printer", "refund", "password", "contract", "delivery")
    troubles = ("has not arrived", "is wrong", "does not work", "was lost")
    rows = []
    for number in range(count):
        thing, trouble = chosen.choice(things), chosen.choice(troubles)
        told = f"Summarize: hello, my {thing} of order {1000 + number} {trouble}. Please help soon."
        rows.append({"input": told, "target": f"{thing} {trouble}"})
    return rows


def say(text: str) -> None:
    print(text, flush=True)


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def _stop(process: subprocess.Popen[Any]) -> None:
    """End a child, gently first."""
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _ask(port: int, body: str) -> str:
    request = Request(f"http://127.0.0.1:{port}/invocations", body.encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as answer:  # noqa: S310 (an address of this machine)
        return str(answer.read().decode())


def main(folder: Path = FOLDER, plan: Callable[[int], tuple[Step, ...]] = steps) -> int:
    """Do what `plan` says; 0, the exit code of the command that failed, or 130 after Ctrl-C."""

    def interrupted(_signal: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)
    demo, port = Demo(folder), _free_port()
    try:
        demo.prepare()
        say(
            f"Everything happens in {folder}, and stays there to be read. To do a step by hand:\n\n"
            f"$ . {shlex.quote(str(Path(sys.executable).parent / 'activate'))}\n"
            f'$ cd {shlex.quote(str(folder))} && export BERTH_CACHE_DIR="$PWD/cache" HF_HUB_OFFLINE=1'
        )
        whole = plan(port)
        for number, step in enumerate(whole, 1):
            if step.line.startswith("berth down"):
                demo.stop_serving()
            demo.run(number, len(whole), step, port)
    except FailedError as error:
        print(f"\nmake demo: {error}; the sandbox of the demo is ended", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("\nmake demo: interrupted; what it had started is ended", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it running
        demo.end()
    say(
        f"\nThat was all of it in {_minutes(time.monotonic() - demo.began)}, with no account and at no cost. "
        f"The report: {folder / 'report.html'}\n"
        "`berth --help` lists the commands; docs/demo.md says what stood in for what."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
