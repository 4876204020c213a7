"""`make demo`: what a failing step, Ctrl-C and a fresh clone leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.sandbox import server

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {scripts!r})
from demo import Step, main
sys.exit(main(Path({folder!r}), lambda port: tuple(Step("because", line) for line in {lines!r})))
"""


def demo(folder: Path, *lines: str) -> subprocess.Popen[str]:
    program = PROGRAM.format(scripts=str(ROOT / "scripts"), folder=str(folder), lines=lines)
    return subprocess.Popen(
        [sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "COVERAGE_PROCESS_START": ""},
    )  # fmt: skip


def read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # another's, or one that has just ended
        return ""


def processes_of(session: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_a_step_that_fails_ends_the_demo_with_its_code_and_the_sandbox_with_it(tmp_path: Path) -> None:
    ran = demo(tmp_path / "d", "berth sandbox up --empty", "berth models --nonsense", "berth assess")
    out, err = ran.communicate(timeout=120)
    assert ran.returncode == 2, err
    assert "[2/3] because\n\n$ berth models --nonsense\n" in out
    assert "[3/3]" not in out
    assert "so far)" in out
    assert err.splitlines()[-1] == (
        "make demo: `berth models --nonsense` ended with exit code 2; the sandbox of the demo is ended"
    )
    assert server.find(tmp_path / "d" / "cache" / "sandbox") is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_all_that_it_has_started(tmp_path: Path, number: signal.Signals) -> None:
    ran = demo(tmp_path / "d", "berth sandbox up --empty", "setsid --fork sleep 601", "sleep 600")
    assert ran.stdout is not None
    for line in ran.stdout:
        if line.startswith("$ sleep 600"):
            break
    if number == signal.SIGINT:  # as a terminal sends it: to everything that stands in the foreground
        os.killpg(ran.pid, number)
    else:
        ran.send_signal(number)
    _, err = ran.communicate(timeout=120)
    assert ran.returncode == 130, err
    assert "interrupted; what it had started is ended" in err
    assert server.find(tmp_path / "d" / "cache" / "sandbox") is None
    assert processes_of(ran.pid) == []
    assert [p for p in Path("/proc").glob("[0-9]*/environ") if str(tmp_path / "d" / "cache") in read(p)] == []


@pytest.mark.slow
def test_make_demo_works_in_a_fresh_clone(tmp_path: Path) -> None:
    clone = tmp_path / "a clone"  # with a blank in its name
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    dropped = ("VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "BERTH_CACHE_DIR")
    environment = {k: v for k, v in os.environ.items() if k not in dropped}
    ran = subprocess.run(
        ["make", "demo"], cwd=clone, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-5_000:] + ran.stderr[-5_000:]
    for said in ("Installing", "g4dn.2xlarge", "all as manifest", "The artifact is whole in S3", "perplexity"):
        assert said in ran.stdout + ran.stderr
    assert "Listed by the tags project=berth: nothing is left. The local AWS has ended." in ran.stdout
    folder = clone / "build" / "demo"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "entative" in page
    assert "Demo: FLAN-T5-XL planned, a tiny T5 measured" in page
    assert server.find(folder / "cache" / "sandbox") is None
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert status.stdout == ""
    installed = subprocess.run(["make", "--question", ".venv/.ready"], cwd=clone, env=environment, check=False)
    assert installed.returncode == 0  # nothing is installed the second time
