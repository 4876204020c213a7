"""Starts a run's processes and answers for them: halves the batch when memory ends, saves when the machine is to end.

Processes are started with torchrun, which is what `accelerate launch` starts too, by the numbers of the plan's
accelerate_config.yaml. Without a GPU `accelerate launch` starts processes that do not find each other (`use_cpu` with
DeepSpeed: each is rank 0 of 1), so the same way is taken everywhere and every process checks its world size.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_runtime.errors import ModelError
from model_runtime.training.notice import Notice
from model_runtime.training.outcome import Outcome, take_outcome
from model_runtime.training.plan import RunPlan, plan_of, planned_settings
from model_runtime.training.settings import FinetuneSettings

if TYPE_CHECKING:
    from model_runtime.training.meeting import Meeting

RUN_FILE = "run.json"
SETTINGS_FILE = "settings.json"
STOP_FILE = "stop-requested"
INTERRUPTED = 75
"""Exit code of a run that was stopped and can go on (EX_TEMPFAIL)."""
_POLL_S = 0.2
_GRACE_S = 30.0
"""How long processes may go on after another machine's have ended; a collective would wait far longer for them."""
_MOST_CRASHES = 1
"""Attempts that may end without a word before the run is given up; the service that started it may try again."""
Say = Callable[[str], None]
Start = Callable[[FinetuneSettings, RunPlan, "Nodes", bool], None]


@dataclass(frozen=True, slots=True)
class Nodes:
    """Where this machine stands: `rank` of `count`; the others meet at `address`:`port`."""

    count: int = 1
    rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0

    @classmethod
    def here(cls) -> Nodes:
        """From the environment that a stack gives its machines."""
        get = os.environ.get
        count = int(get("BERTH_NODES", "1"))
        port = int(get("BERTH_PORT", "29400")) if count > 1 else 0
        return cls(count, int(get("BERTH_NODE_RANK", "0")), get("BERTH_FIRST_NODE", "127.0.0.1"), port)


def run(
    settings: FinetuneSettings,
    *,
    say: Say,
    nodes: Nodes | None = None,
    notice: Notice | None = None,
    start: Start | None = None,
) -> Outcome:
    """Train until the artifact is there, or until this process is told to end. Raises `ModelError` where it cannot.

    `start` runs the processes of one attempt to their end.
    """
    nodes = nodes or Nodes.here()
    output = Path(settings.output)
    output.mkdir(parents=True, exist_ok=True)
    plan = plan_of(settings)
    settings, changes = planned_settings(settings, plan)
    for change in changes:
        say(change)
    if plan.nodes != nodes.count:
        if plan.details or nodes.count < 1:
            raise ModelError(f"the plan is for {plan.nodes} machines, this run has {nodes.count}; plan again")
        plan = replace(plan, nodes=nodes.count, processes=settings.processes * nodes.count)
    plan = _fitted_to_machine(plan, settings, nodes, say)
    settings = _uploading(settings)
    _write(output / SETTINGS_FILE, settings.to_json())
    state = _State(output, plan)
    stop = output / STOP_FILE
    stop.unlink(missing_ok=True)
    meeting = _meeting_of(nodes) if nodes.count > 1 else None
    with _Watch(stop, notice, say):
        return _attempts(settings, state, nodes, output, say, start or _starter(meeting), meeting)


def _meeting_of(nodes: Nodes) -> Meeting:
    """With the other machines, on the port after torchrun's; it imports torch, which runs of one machine spare."""
    from model_runtime.training.meeting import Meeting

    return Meeting(nodes.address, nodes.port + 1, nodes.rank, nodes.count)


def _starter(meeting: Meeting | None) -> Start:
    return start_processes if meeting is None else partial(start_processes, failed=meeting.failed)


def _uploading(settings: FinetuneSettings) -> FinetuneSettings:
    """With the place that a stack gives its machines to write to, where the settings name none."""
    bucket, prefix = os.environ.get("BERTH_BUCKET", ""), os.environ.get("BERTH_OUTPUT", "")
    if settings.upload or not bucket or not prefix:
        return settings
    return replace(settings, upload=f"s3://{bucket}/{prefix}")


def _fitted_to_machine(plan: RunPlan, settings: FinetuneSettings, nodes: Nodes, say: Say) -> RunPlan:
    """The plan cut for the GPUs that there are; the global batch is kept."""
    wanted = plan.processes // plan.nodes
    there = _gpus() if settings.device != "cpu" else 0
    if not there or there >= wanted:
        return plan
    found = plan.cut(_divisor(plan, there * nodes.count), there * nodes.count)
    say(
        f"this machine has {there} GPUs, the plan {wanted}: {found.micro_batch} × {found.accumulation} × "
        f"{found.processes} makes the same batch of {plan.global_batch}"
    )
    return found


def _divisor(plan: RunPlan, world: int) -> int:
    """The largest micro-batch up to the plan's that `world` processes make the global batch of."""
    fitting = [n for n in range(1, plan.micro_batch + 1) if plan.global_batch % (n * world) == 0]
    if not fitting:
        raise ModelError(f"a global batch of {plan.global_batch} cannot be shared by {world} GPUs; plan again")
    return max(fitting)


def _gpus() -> int:
    """GPUs of this machine, without importing torch into the launcher."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([d for d in visible.split(",") if d.strip() and d.strip() != "-1"])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) if Path("/proc/driver/nvidia/gpus").is_dir() else 0


class _State:
    """What an earlier start of the run has settled: the cut of the batch, and whether it was tried."""

    def __init__(self, output: Path, plan: RunPlan) -> None:
        self.path, self.plan = output / RUN_FILE, plan
        self.tried = False
        self.history: list[dict[str, Any]] = []
        if not self.path.is_file():
            return
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if found["global_batch"] != plan.global_batch:
                raise ModelError(
                    f"{output} was begun with a global batch of {found['global_batch']}, now it is "
                    f"{plan.global_batch}; take another output folder"
                )
            self.history = list(found["history"])
            if found["processes"] == plan.processes:
                self.plan = plan.cut(int(found["micro_batch_size"]))
                self.tried = bool(found["tried"])
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{self.path} cannot be read ({error}); take another output folder") from error

    def cut(self) -> dict[str, Any]:
        """What machines must have in common."""
        return {"micro_batch_size": self.plan.micro_batch, "tried": self.tried}

    def take(self, cut: dict[str, Any]) -> None:
        """What the first machine has settled holds for this one, which may be newer."""
        self.plan, self.tried = self.plan.cut(int(cut["micro_batch_size"])), bool(cut["tried"])

    def note(self, result: str) -> None:
        self.history.append({"micro_batch_size": self.plan.micro_batch, "result": result})
        self.write()

    def write(self) -> None:
        document = {
            "micro_batch_size": self.plan.micro_batch,
            "gradient_accumulation_steps": self.plan.accumulation,
            "processes": self.plan.processes,
            "global_batch": self.plan.global_batch,
            "tried": self.tried,
            "history": self.history,
        }
        _write(self.path, document)


def _attempts(
    settings: FinetuneSettings,
    state: _State,
    nodes: Nodes,
    output: Path,
    say: Say,
    start: Start,
    meeting: Meeting | None,
) -> Outcome:
    crashes = 0
    while True:
        if meeting is not None:
            state.take(meeting.begin(state.cut()))
        preflight = settings.preflight and not state.tried
        if preflight:
            say(f"pre-flight: two steps with the longest batch, micro-batch {state.plan.micro_batch}")
        take_outcome(output)
        start(settings, state.plan, nodes, preflight)
        outcome = take_outcome(output) or Outcome("crashed", "a process ended without a word")
        if outcome.kind == "fits":
            state.tried = True
            if (output / STOP_FILE).exists():
                outcome = Outcome("interrupted", "before the first step")
        if meeting is not None:
            outcome = meeting.end(outcome)
        if outcome.kind == "crashed":
            crashes += 1
            state.note("crashed")
            if crashes > _MOST_CRASHES:
                raise ModelError("a process of the run ended without a word, twice; its last lines stand above")
            say(f"{outcome.message}; going on from the newest whole checkpoint")
            continue
        if outcome.kind == "refused":
            raise ModelError(outcome.message)
        state.note(outcome.kind)
        if outcome.kind == "out-of-memory":
            _halve(state, outcome, say)
            continue
        if outcome.kind == "fits":
            continue
        return outcome


def _halve(state: _State, outcome: Outcome, say: Say) -> None:
    smaller = state.plan.halved()
    if smaller is None:
        raise ModelError(
            f"out of memory with a micro-batch of 1 ({outcome.message}); use gradient checkpointing, shorter examples, "
            "lora or qlora, or a larger GPU: berth size MODEL --for training says which"
        )
    say(
        f"OUT OF MEMORY with micro-batch {state.plan.micro_batch} ({outcome.message}): now {smaller.micro_batch} with "
        f"{smaller.accumulation} accumulation steps instead of {state.plan.accumulation}; the batch of "
        f"{smaller.global_batch} stays"
    )
    state.plan, state.tried = smaller, False
    state.write()


def start_processes(
    settings: FinetuneSettings, plan: RunPlan, nodes: Nodes, preflight: bool, failed: Callable[[], bool] | None = None
) -> None:
    """Start this machine's processes and wait for them. How they ended is in their outcome file.

    `failed`: whether another machine's processes have; these then have half a minute to see it.
    """
    output = Path(settings.output)
    each = plan.processes // nodes.count
    worker = ["-m", "model_runtime.finetune", str(output / SETTINGS_FILE), "--worker", str(plan.micro_batch)]
    worker += ["--processes", str(plan.processes), "--nodes", str(nodes.count), *(["--preflight"] if preflight else [])]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])  # ninja
    if settings.device == "cpu" or not _gpus():
        environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        if plan.deepspeed is None and plan.processes > 1:
            environment["ACCELERATE_USE_CPU"] = "true"
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // each)))
    elif plan.processes == 1 and "CUDA_VISIBLE_DEVICES" not in environment:
        environment["CUDA_VISIBLE_DEVICES"] = "0"  # the Trainer would copy the model to every GPU it sees
    command = [sys.executable, *worker]
    if plan.processes > 1 or plan.deepspeed is not None:  # DeepSpeed wants a process group even of one
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={each}", *_meeting(nodes), *worker]
    process = subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603 (words of our own)
    until = 0.0
    try:
        while process.poll() is None:
            time.sleep(_POLL_S)
            if failed is not None and not until and failed():
                until = time.monotonic() + _GRACE_S
            if until and time.monotonic() > until:
                break
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _meeting(nodes: Nodes) -> list[str]:
    if nodes.count == 1:
        return ["--standalone"]
    return [
        f"--nnodes={nodes.count}",
        f"--node_rank={nodes.rank}",
        f"--master_addr={nodes.address}",
        f"--master_port={nodes.port}",
    ]


class _Watch:
    """Turns SIGTERM and a spot notice into the stop file, which every process of this machine looks for at each step.

    torchrun is not signalled: it would end its processes after 30 seconds, and a checkpoint may take longer.
    """

    def __init__(self, stop: Path, notice: Notice | None, say: Say) -> None:
        self.stop, self.notice, self.say = stop, notice, say
        self._ended = threading.Event()
        self._before: Any = None

    def __enter__(self) -> _Watch:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, lambda *_: self._ask("told to end (SIGTERM)"))
        if self.notice is not None:
            threading.Thread(target=self._look, args=(self.notice,), name="spot notice", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, why: str) -> None:
        if not self.stop.exists():
            self.stop.write_text(why + "\n", encoding="utf-8")
            self.say(f"{why}: saving a checkpoint at the next step")

    def _look(self, notice: Notice) -> None:
        while not self._ended.wait(notice.every_s):
            if told := notice.read():
                self._ask(f"spot notice: {told}")
                return


def _write(path: Path, document: dict[str, Any]) -> None:
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
