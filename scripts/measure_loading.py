"""Measure the host memory that loading a model takes, way by way, on real files.

Every case runs in a fresh process: it imports torch and transformers, reports what it holds (the baseline), loads a
model from files that this script made from a configuration with random weights, and reads every weight once, as a
copy to a GPU does. Meanwhile the parent samples `/proc/<pid>/status`:

- peak: `VmHWM` (reset after the imports through `/proc/self/clear_refs`) less the baseline's `VmRSS`: what `top` and
  a container's accounting of a fresh file show;
- anonymous: the largest `RssAnon` seen, less the baseline's: what no kernel can take back without swap;
- mapped: the largest `RssFile` seen, less the baseline's: pages of the weight files, which the kernel may take back.

Run it from the repository root in an environment with torch and transformers (`requirements/test.txt`):

    python scripts/measure_loading.py                    # two models of about 0.4 B parameters, 1.5 GB in fp32
    python scripts/measure_loading.py --quick --json     # one of 0.05 B
    python scripts/measure_loading.py --csv rows.csv --only build-load,build-mmap-assign

To measure another version of transformers, put it first on PYTHONPATH. Linux only: the figures come from /proc.
A case holds at most twice the fp32 weights beside its baseline (about 4.5 GiB); the files are deleted afterwards.
"""

from __future__ import annotations

import argparse
import csv
import gc
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal, cast

GB = 10**9
Format = Literal["safetensors", "bin"]
TORCH_NAME = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
SAMPLE_SECONDS = 0.002

_LLAMA = {"model_type": "llama", "tie_word_embeddings": False}
SHAPES: dict[str, dict[str, Any]] = {
    "t5-0.4b": {
        "model_type": "t5", "d_model": 1024, "d_kv": 64, "num_heads": 16, "d_ff": 2816, "num_layers": 12,
        "num_decoder_layers": 12, "vocab_size": 32128, "feed_forward_proj": "gated-gelu",
    },
    "llama-0.4b": _LLAMA | {
        "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24, "num_attention_heads": 16,
        "num_key_value_heads": 16, "vocab_size": 32000,
    },
    "llama-0.05b": _LLAMA | {
        "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 12, "num_attention_heads": 8,
        "num_key_value_heads": 8, "vocab_size": 8000,
    },
}  # fmt: skip
FULL_MODELS = ("t5-0.4b", "llama-0.4b")
QUICK_MODELS = ("llama-0.05b",)


@dataclass(frozen=True)
class Case:
    """One way of loading one kind of file. `file_dtype`, `dtype`: what is stored and what the model is to be in."""

    way: str
    file_dtype: str
    dtype: str
    file_format: Format
    shards: int = 1

    @property
    def files(self) -> str:
        return f"{self.file_dtype}-{self.file_format}-{self.shards}"


CASES = (
    Case("from-pretrained", "fp32", "fp32", "safetensors"),
    Case("from-pretrained", "fp32", "bf16", "safetensors"),
    Case("from-pretrained", "fp32", "fp16", "safetensors"),
    Case("device-map-cpu", "fp32", "fp32", "safetensors"),
    Case("bitsandbytes-int8", "fp32", "int8", "safetensors"),
    Case("from-pretrained", "fp32", "fp32", "safetensors", 4),
    Case("from-pretrained", "fp32", "bf16", "safetensors", 4),
    Case("from-pretrained", "bf16", "bf16", "safetensors"),
    Case("from-pretrained", "bf16", "fp32", "safetensors"),
    Case("from-pretrained", "fp32", "fp32", "bin"),
    Case("from-pretrained", "fp32", "bf16", "bin"),
    Case("build-load", "fp32", "fp32", "bin"),
    Case("build-load", "fp32", "bf16", "bin"),
    Case("build-mmap-assign", "fp32", "fp32", "bin"),
    Case("from-pretrained", "fp32", "fp32", "bin", 4),
    Case("build-load-shards", "fp32", "fp32", "bin", 4),
)
WAYS = {
    "from-pretrained": "AutoModel's from_pretrained with nothing but the dtype given",
    "device-map-cpu": "from_pretrained with device_map='cpu'",
    "bitsandbytes-int8": "from_pretrained with bitsandbytes' load_in_8bit",
    "build-load": "the model built from its configuration, then torch.load and load_state_dict",
    "build-load-shards": "the same, one shard of the checkpoint after the other",
    "build-mmap-assign": "the model built, then torch.load(mmap=True) and load_state_dict(assign=True)",
}


@dataclass
class Row:
    """One measurement. Sizes in bytes, without the baseline; ratios are to `model_bytes`."""

    way: str
    model: str
    params: int
    file_dtype: str
    dtype: str
    file_format: str
    shards: int
    file_bytes: int
    largest_shard_bytes: int
    model_bytes: int
    baseline_bytes: int
    baseline_anon_bytes: int
    peak_bytes: int
    anon_bytes: int
    mapped_bytes: int
    peak_ratio: float
    anon_ratio: float
    mapped_ratio: float
    torch: str
    transformers: str
    machine: str
    as_of: str
    source: str


# ---------------------------------------------------------------- what the child processes do


def proc_status(pid: int | str = "self") -> dict[str, int]:
    """Resident sizes of a process in bytes: VmHWM, VmRSS, RssAnon, RssFile, RssShmem. `OSError` once it has ended."""
    sizes = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in {"VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem"}:
            sizes[name] = int(rest.split()[0]) * 1024
    if "VmRSS" not in sizes:
        raise ProcessLookupError(f"process {pid} has ended")
    return sizes


def config_of(shape: str) -> Any:
    from transformers import AutoConfig

    values = dict(SHAPES[shape])
    return AutoConfig.for_model(values.pop("model_type"), **values)


def model_class(shape: str) -> Any:
    if SHAPES[shape]["model_type"] == "t5":
        from transformers import T5ForConditionalGeneration

        return T5ForConditionalGeneration
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM


def make_files(shape: str, file_dtype: str, file_format: Format, shards: int, folder: Path) -> None:
    """A checkpoint of `shape` with random weights in `folder`, as the hub publishes one."""
    import torch

    torch.manual_seed(0)
    dtype = getattr(torch, TORCH_NAME[file_dtype])
    model = model_class(shape)(config_of(shape)).to(dtype)
    total = sum(p.numel() * p.element_size() for p in model.parameters())
    if file_format == "safetensors":
        per_shard = total if shards == 1 else total // shards
        model.save_pretrained(folder, max_shard_size=per_shard + 1, safe_serialization=True)
        return
    model.config.save_pretrained(folder)
    state = model.state_dict()
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return
    # Tensors that share a storage go into one shard, or each file would hold a copy.
    groups: dict[int, list[str]] = {}
    for name, tensor in state.items():
        groups.setdefault(tensor.data_ptr(), []).append(name)
    parts: list[dict[str, Any]] = [{}]
    filled = 0
    for names in groups.values():
        if filled >= total / shards and len(parts) < shards:
            parts.append({})
            filled = 0
        parts[-1].update({name: state[name] for name in names})
        filled += state[names[0]].numel() * state[names[0]].element_size()
    where: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        file = f"pytorch_model-{number:05d}-of-{len(parts):05d}.bin"
        torch.save(part, folder / file)
        where |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def load(case: Case, shape: str, folder: Path) -> Any:
    """The model, loaded the way that `case` says."""
    import torch
    import transformers

    modern = int(transformers.__version__.split(".")[0]) >= 5
    cls = model_class(shape)
    if case.way == "bitsandbytes-int8":
        config = transformers.BitsAndBytesConfig(load_in_8bit=True)
        return cls.from_pretrained(folder, quantization_config=config, device_map="cpu")
    dtype = getattr(torch, TORCH_NAME[case.dtype])
    if case.way in {"from-pretrained", "device-map-cpu"}:
        options: dict[str, Any] = {"dtype" if modern else "torch_dtype": dtype}
        if case.way == "device-map-cpu":
            options["device_map"] = "cpu"
        return cls.from_pretrained(folder, **options)
    torch.set_default_dtype(dtype)
    model = cls(transformers.AutoConfig.from_pretrained(folder))
    for file in sorted(folder.glob("*.bin")):
        assign = case.way == "build-mmap-assign"
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=assign)
        model.load_state_dict(state, assign=assign, strict=case.way != "build-load-shards")
        del state
    return model


def run_child(case: Case, shape: str, folder: Path) -> None:
    """Import, say so, wait for a line, load, read every weight, report. One JSON object a line on stdout."""
    import torch
    import transformers

    torch.set_grad_enabled(False)
    model_class(shape)
    if case.way == "bitsandbytes-int8":
        import bitsandbytes  # noqa: F401
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    versions = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}
    print(json.dumps({"ready": proc_status(), **versions}), flush=True)
    sys.stdin.readline()
    model = load(case, shape, folder)
    storages: dict[int, int] = {}
    params = 0
    for tensor in model.parameters():
        if tensor.data_ptr() in storages:
            continue
        storages[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        params += tensor.numel()
        for chunk in tensor.detach().reshape(-1).split(1 << 20):
            chunk.max()
    print(json.dumps({"done": proc_status(), "model_bytes": sum(storages.values()), "params": params}), flush=True)


# ---------------------------------------------------------------- what the parent does


def watch(pid: int, stop: threading.Event, peaks: dict[str, int]) -> None:
    """Largest sizes of process `pid` into `peaks`, until `stop` is set or it ends."""
    while not stop.is_set():
        try:
            now = proc_status(pid)
        except OSError:
            return
        for name, size in now.items():
            peaks[name] = max(peaks.get(name, 0), size)
        time.sleep(SAMPLE_SECONDS)


def child_environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu", "TRANSFORMERS_VERBOSITY": "error"} | {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")
    }


def child_command(task: str, case: Case, shape: str, folder: Path) -> list[str]:
    given = json.dumps({"case": asdict(case), "shape": shape, "folder": str(folder)})
    return [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), "--child", task, given]


def measure(case: Case, shape: str, folder: Path) -> dict[str, Any]:
    """What one fresh process saw. Raises `RuntimeError` with the end of its error output if it failed."""
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            child_command("load", case, shape, folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=child_environment(),
        )
        to_child, from_child = cast("IO[str]", child.stdin), cast("IO[str]", child.stdout)
        stop = threading.Event()
        peaks: dict[str, int] = {}
        watcher = threading.Thread(target=watch, args=(child.pid, stop, peaks), daemon=True)
        replies: list[dict[str, Any]] = []
        try:
            for reply in json_lines(from_child):
                replies.append(reply)
                if "ready" in reply:
                    watcher.start()
                    to_child.write("go\n")
                    to_child.flush()
                else:
                    break
        finally:
            stop.set()
            if watcher.ident is not None:
                watcher.join()
            to_child.close()
            child.wait(timeout=600)
            from_child.close()
        if child.returncode or len(replies) != 2:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["no error output"])[-1]
            raise RuntimeError(f"{case.way} of {shape} ended with {child.returncode}: {last}")
    ready, done = replies
    before, after = ready["ready"], done["done"]
    return {
        **ready,
        **done,
        "peak_bytes": after["VmHWM"] - before["VmRSS"],
        # The child's own last look counts as a sample.
        "anon_bytes": max(peaks["RssAnon"], after["RssAnon"]) - before["RssAnon"],
        "mapped_bytes": max(peaks["RssFile"], after["RssFile"]) - before["RssFile"],
    }


def json_lines(stream: IO[str]) -> Iterator[dict[str, Any]]:
    """A child's own messages; lines that a library printed are passed over."""
    for line in stream:
        if line.startswith('{"'):
            yield json.loads(line)


def machine() -> str:
    """CPU, RAM and kernel, for the record."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.machine())
    ram_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return f"{cpu}, {os.cpu_count()} cores, {ram_kib / 2**20:.1f} GiB, Linux {platform.release().split('-')[0]}"


def reason_to_skip(case: Case) -> str:
    """Why `case` cannot be measured here; empty when it can."""
    if case.way == "bitsandbytes-int8" and importlib.util.find_spec("bitsandbytes") is None:
        return "bitsandbytes is not installed"
    if case.way == "device-map-cpu" and importlib.util.find_spec("accelerate") is None:
        return "accelerate is not installed"
    return ""


def available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def run_cases(cases: list[Case], shapes: tuple[str, ...], scratch: Path, say: Callable[[str], None]) -> list[Row]:
    """Measure every case on every shape; a set of files is made once, used by its cases and deleted."""
    rows: list[Row] = []
    source = "scripts/measure_loading.py"
    for shape in shapes:
        for files in dict.fromkeys(c.files for c in cases):
            same = [c for c in cases if c.files == files]
            folder = scratch / f"{shape}-{files}"
            folder.mkdir()
            try:
                made = subprocess.run(
                    child_command("make", same[0], shape, folder),
                    check=False,
                    capture_output=True,
                    text=True,
                    env=child_environment(),
                )
                if made.returncode:
                    raise RuntimeError(f"the files of {shape} could not be made: {made.stderr.strip()[-400:]}")
                weights = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
                sizes = [f.stat().st_size for f in weights]
                for case in same:
                    if why := reason_to_skip(case):
                        say(f"skipped {case.way}: {why}")
                        continue
                    if available_bytes() < 3 * sum(sizes) + 2 * GB:
                        say(f"skipped {case.way} of {shape}: too little memory is free here")
                        continue
                    seen = measure(case, shape, folder)
                    size = seen["model_bytes"]
                    row = Row(
                        case.way,
                        shape,
                        seen["params"],
                        case.file_dtype,
                        case.dtype,
                        case.file_format,
                        len(weights),
                        sum(sizes),
                        max(sizes),
                        size,
                        seen["ready"]["VmRSS"],
                        seen["ready"]["RssAnon"],
                        seen["peak_bytes"],
                        seen["anon_bytes"],
                        seen["mapped_bytes"],
                        round(seen["peak_bytes"] / size, 3),
                        round(seen["anon_bytes"] / size, 3),
                        round(seen["mapped_bytes"] / size, 3),
                        seen["torch"],
                        seen["transformers"],
                        machine(),
                        f"{datetime.now(UTC):%Y-%m-%d}",
                        source,
                    )
                    rows.append(row)
                    say(line_of(row))
            finally:
                shutil.rmtree(folder)
    return rows


def line_of(row: Row) -> str:
    what = f"{row.way} {row.model}: {row.file_dtype} {row.file_format} x{row.shards} -> {row.dtype}"
    return (
        f"{what:<64} weights {row.model_bytes / GB:5.2f} GB  peak {row.peak_ratio:5.2f}x  "
        f"anonymous {row.anon_ratio:5.2f}x  mapped {row.mapped_ratio:5.2f}x"
    )


def write_csv(rows: list[Row], path: Path) -> None:
    """`rows` as a CSV file, whole or not at all."""
    beside = path.with_name(path.name + ".part")
    with beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    beside.replace(path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Measure the host memory that loading a model takes, way by way, on real files.",
        epilog="ways: " + "; ".join(f"{name}: {what}" for name, what in WAYS.items()),
    )
    parser.add_argument("--quick", action="store_true", help="one small model (0.05 B parameters, 0.19 GB in fp32)")
    parser.add_argument("--only", default="", help="ways to measure, by commas; default: all")
    parser.add_argument("--format", choices=("safetensors", "bin"), help="only files of this format; default: both")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    parser.add_argument("--csv", type=Path, help="write the rows to this file as well")
    parser.add_argument("--scratch", type=Path, help="folder for the weight files; default: the system's temporary one")
    parser.add_argument("--child", nargs=2, metavar=("TASK", "JSON"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not sys.platform.startswith("linux"):
        print("measure_loading reads /proc and runs on Linux only", file=sys.stderr)
        return 2
    if options.child:
        task, given = options.child[0], json.loads(options.child[1])
        case, folder = Case(**given["case"]), Path(given["folder"])
        if task == "make":
            make_files(given["shape"], case.file_dtype, case.file_format, case.shards, folder)
        else:
            run_child(case, given["shape"], folder)
        return 0
    only = [name for name in options.only.split(",") if name]
    if strange := sorted(set(only) - set(WAYS)):
        print(f"unknown way {', '.join(strange)}; known: {', '.join(WAYS)}", file=sys.stderr)
        return 2
    for module in ("torch", "transformers"):
        if importlib.util.find_spec(module) is None:
            print(f"{module} is not installed in this environment; use one with requirements/test.txt", file=sys.stderr)
            return 2
    cases = [
        c for c in CASES if (not only or c.way in only) and (not options.format or c.file_format == options.format)
    ]
    notes: list[str] = []

    def say(text: str) -> None:
        notes.append(text)
        print(text, file=sys.stderr if options.json else sys.stdout, flush=True)

    with tempfile.TemporaryDirectory(prefix="berth-loading-", dir=options.scratch) as scratch:
        rows = run_cases(cases, QUICK_MODELS if options.quick else FULL_MODELS, Path(scratch), say)
    if options.csv:
        write_csv(rows, options.csv)
    if options.json:
        skipped = [note for note in notes if note.startswith("skipped")]
        print(json.dumps({"rows": [asdict(row) for row in rows], "skipped": skipped}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
