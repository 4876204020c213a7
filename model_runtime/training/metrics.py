"""What a run tells while it goes: a line for a person, a line of JSON for machines, CloudWatch's where it is wished."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_runtime.errors import ModelError

FILE = "metrics.jsonl"
SPENT = "spent.json"
_UNITS = {"Loss": "None", "EvalLoss": "None", "TokensPerSecond": "Count/Second", "Mfu": "Percent", "Usd": "None"}


@dataclass(slots=True)
class Meter:
    """Tokens and operations that one process has done; the others do as much."""

    tokens: Any = 0
    """A tensor on the device, so that counting waits for nothing."""
    padded_tokens: int = 0
    flops: float = 0.0


@dataclass(slots=True)
class Log:
    """Writes `folder/metrics.jsonl`. `usd_per_hour` 0 and `peak` None: not known, told as null. `peak`: FLOP/s.

    `spent_s`: seconds that earlier attempts of the run took, which were paid for as well.
    """

    folder: Path
    processes: int
    usd_per_hour: float
    peak: float | None
    say: Callable[[str], None]
    emit: Callable[[dict[str, float]], None]
    spent_s: float = 0.0
    started: float = field(default_factory=time.monotonic)
    clock: Callable[[], float] = time.monotonic
    _last: tuple[float, int, int, float] = (0.0, 0, 0, 0.0)

    @property
    def path(self) -> Path:
        return self.folder / FILE

    def begin(self, step: int) -> None:
        """Go on after `step`: what an interrupted attempt wrote after it is taken away."""
        spent = self.folder / SPENT
        if spent.is_file():
            self.spent_s = float(json.loads(spent.read_text(encoding="utf-8"))["seconds"])
        self._last = (self.clock(), step, 0, 0.0)
        if not self.path.is_file():
            return
        kept = [line for line in read_metrics(self.path) if int(line["step"]) <= step]
        _replace(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    @property
    def seconds(self) -> float:
        return self.spent_s + self.clock() - self.started

    @property
    def usd(self) -> float | None:
        return self.seconds / 3600 * self.usd_per_hour if self.usd_per_hour else None

    def train(self, step: int, total: int, logs: dict[str, float], meter: Meter, memory_bytes: int) -> None:
        """One line about the steps since the last. Raises `ModelError` when the loss is no number any more."""
        loss = float(logs["loss"])
        now, tokens = self.clock(), int(meter.tokens)
        before, last_step, last_tokens, last_flops = self._last
        seconds, steps = max(now - before, 1e-9), max(step - last_step, 1)
        self._last = (now, step, tokens, meter.flops)
        rate = (tokens - last_tokens) * self.processes / seconds
        mfu = (meter.flops - last_flops) / seconds / self.peak if self.peak and meter.flops else None
        left = (total - step) * seconds / steps
        if not math.isfinite(loss):
            raise ModelError(f"the loss is {loss} at step {step}; lower the learning rate, or train in bf16 or fp32")
        line = {
            "kind": "train",
            "step": step,
            "steps": total,
            "epoch": round(float(logs.get("epoch", 0.0)), 4),
            "loss": loss,
            "learning_rate": float(logs["learning_rate"]),
            "grad_norm": _number(logs.get("grad_norm")),
            "tokens_per_s": round(rate, 1),
            "step_s": round(seconds / steps, 4),
            "mfu": None if mfu is None else round(mfu, 4),
            "memory_bytes": memory_bytes,
            "elapsed_s": round(self.seconds, 1),
            "usd": None if self.usd is None else round(self.usd, 4),
            "left_s": round(left, 1),
        }
        self._write(line)
        said = f"step {step}/{total}  loss {loss:.4f}  lr {line['learning_rate']:.2e}  {rate:,.0f} tokens/s"
        if mfu is not None:
            said += f"  MFU {mfu:.1%}"
        said += f"  {memory_bytes / 2**30:.2f} GiB"
        if self.usd is not None:
            said += f"  ${self.usd:,.2f} so far"
        self.say(f"{said}  {_duration(left)} left")
        values = {"Loss": loss, "TokensPerSecond": rate}
        if mfu is not None:
            values["Mfu"] = 100 * mfu
        if self.usd is not None:
            values["Usd"] = self.usd
        self.emit(values)

    def evaluation(self, step: int, total: int, loss: float, best: float | None) -> None:
        """One line about the validation set. `best`: the lowest loss so far, before this one."""
        better = best is None or loss < best
        line = {
            "kind": "eval",
            "step": step,
            "steps": total,
            "loss": loss,
            "perplexity": math.exp(loss) if loss < 700 else None,
            "best": better,
            "elapsed_s": round(self.seconds, 1),
        }
        self._write(line)
        self.say(f"step {step}/{total}  validation loss {loss:.4f}" + ("  (the lowest so far)" if better else ""))
        self.emit({"EvalLoss": loss})
        now, _, tokens, flops = self._last
        self._last = (self.clock(), step, tokens, flops) if now else self._last

    def _write(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        _replace(self.folder / SPENT, json.dumps({"seconds": round(self.seconds, 1)}) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a last one that an interruption cut short is left out."""
    found = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(text))
        except ValueError:
            break
    return found


def loss_curve(lines: list[dict[str, Any]], most: int = 100) -> dict[str, list[list[float]]]:
    """`train` and `validation` as [step, loss]. Of more than `most` training losses, as many means of neighbours, each
    at its last step."""
    train = [(line["step"], line["loss"]) for line in lines if line["kind"] == "train"]
    size = -(-len(train) // most) or 1
    parts = [train[i : i + size] for i in range(0, len(train), size)]
    return {
        "train": [[part[-1][0], round(sum(loss for _, loss in part) / len(part), 6)] for part in parts],
        "validation": [[line["step"], round(line["loss"], 6)] for line in lines if line["kind"] == "eval"],
    }


def cloudwatch(target: str, namespace: str, model: str, stack: str) -> Callable[[dict[str, float]], None]:
    """Metric lines in CloudWatch's embedded format to `target` (`model_runtime.handler.emf.writer`)."""
    from model_runtime.handler.emf import writer

    if target == "off":
        return lambda _: None
    write = writer(target)

    def emit(values: dict[str, float]) -> None:
        document = {
            "_aws": {
                "Timestamp": int(time.time() * 1000),
                "CloudWatchMetrics": [
                    {
                        "Namespace": namespace,
                        "Dimensions": [["Stack"]] if stack else [["Model"]],
                        "Metrics": [{"Name": name, "Unit": _UNITS[name]} for name in values],
                    }
                ],
            },
            **({"Stack": stack} if stack else {}),
            "Model": model,
            **values,
        }
        write(json.dumps(document, separators=(",", ":")))

    return emit


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _duration(seconds: float) -> str:
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours} h {m:02d} min" if hours else f"{m} min {s:02d} s"


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
