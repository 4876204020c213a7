"""The main job on the embedded defaults, by the commands that a person would type: need, model, memory, machine, cost.

Run by `make demo`. Stops at the first command that fails, with its exit code.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEPS: tuple[tuple[str, str], ...] = (
    (
        "A team wants its support tickets summarized, in English and German, 5,000 a day, each within 5 seconds.\n"
        "Is a large language model needed for that? Its answers stand in docs/support-tickets.json.",
        "berth assess --answers docs/support-tickets.json",
    ),
    (
        "Which open encoder-decoder models summarize and may be used in business? The smallest comes first.",
        "berth models --task summarization --licence business --architecture encoder-decoder --max-params 3B",
    ),
    (
        "How much memory does FLAN-T5-XL take in 32 bit, and for what?",
        "berth memory google/flan-t5-xl --dtype fp32",
    ),
    (
        "On which machine does it run, and what does that cost? One GPU, us-east-1; what was not taken has its reason.",
        "berth size google/flan-t5-xl --dtype fp32 --region us-east-1",
    ),
)


def main() -> int:
    command = [sys.executable, "-m", "berth"]
    for number, (why, line) in enumerate(STEPS, 1):
        print(f"\n[{number}/{len(STEPS)}] {why}\n\n$ {line}\n", flush=True)
        ran = subprocess.run(command + shlex.split(line)[1:], cwd=ROOT, check=False, env={**os.environ})
        if ran.returncode != 0:
            print(f"\nmake demo: `{line}` ended with exit code {ran.returncode}", file=sys.stderr)
            return ran.returncode
    print("\nThat was all of it, offline: from the need to a machine and its price. `berth --help` lists the commands.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
