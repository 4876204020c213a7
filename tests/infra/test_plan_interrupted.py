"""Ctrl-C while a program is recorded: it ends at once, wherever it comes, and says nothing of what was not begun."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
import pulumi, pulumi_aws
from infra.plan import record_program

def interrupt(value):
    os.kill(os.getpid(), signal.SIGINT)
    return value

def program():
    first = pulumi_aws.sns.Topic("first")
    if sys.argv[1] == "program":
        interrupt(None)
    second = pulumi_aws.sns.Topic("second", display_name=first.arn.apply(interrupt if sys.argv[1] == "apply" else str))
    return {"arn": second.arn}

try:
    record_program("trial", "us-east-1", program, lambda name: {})
except KeyboardInterrupt:
    print("interrupted")
else:
    print("whole")
"""


@pytest.mark.parametrize(("where", "says"), [("program", "interrupted"), ("apply", "interrupted"), ("never", "whole")])
def test_an_interrupt_ends_a_plan_and_leaves_no_traceback(where: str, says: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, where], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ran.stdout, ran.stderr) == (f"{says}\n", "")
