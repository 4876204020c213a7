"""What the troubleshooting page quotes is what the code says, and no part of the code goes unmentioned."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
PACKAGES = ("berth", "infra", "model_runtime", "sizing")
ERRORS = {"UserError", "ModelError", "RequestError", "unknown"}
OWN = {
    "berth/schemas", "berth/show", "infra/policy", "infra/sandbox/services", "sizing/accuracy",
    "sizing/models/families", "sizing/need", "model_runtime/watch",
}  # fmt: skip
"""Folders whose errors explain themselves: of Berth's own data, or met under the message of another folder."""


def quoted() -> list[str]:
    """The messages in the first column of the tables."""
    rows = re.findall(r"^\| `((?:\\`|[^`])+)` \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [row.replace("\\`", "`") for row in rows]


def words(node: ast.expr) -> str:
    """A string's text, what is put in as a hole."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(words(value) if isinstance(value, ast.Constant) else "\0" for value in node.values)
    if isinstance(node, ast.BinOp):
        return words(node.left) + words(node.right)
    return "\0"


@cache
def texts() -> dict[str, list[str]]:
    """Every string of the packages by file, an f-string as one; of `unknown(kind, …)` the sentence that it makes."""
    found: dict[str, list[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            said = []
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr | ast.BinOp | ast.Constant):
                    said.append(words(node))
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "unknown" and node.args:
                    said.append(f"unknown {words(node.args[0])} '\0'")
            found[path.relative_to(ROOT).as_posix()] = [text for text in said if len(text) > 8]
    return found


@cache
def where(message: str) -> tuple[str, ...]:
    """The files that can say `message`; a hole of either side stands for any text."""
    parts = message.split("…")
    longest = max(parts, key=len)
    pattern = re.compile(".*?".join(map(re.escape, parts)), flags=re.DOTALL)
    return tuple(
        path for path, said in texts().items() if any(longest in text and pattern.search(text) for text in said)
    )


@pytest.mark.parametrize("message", quoted())
def test_a_quoted_message_is_one_that_the_code_says(message: str) -> None:
    assert where(message), message


def test_every_row_says_why_and_what_to_do() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(rows) == len(quoted()) > 80
    for row in rows:
        assert len([cell for cell in re.split(r"(?<!\\)\|", row)[1:-1] if cell.strip()]) == 3, row


def test_every_folder_whose_errors_a_person_meets_is_on_the_page() -> None:
    raising = set()
    for path in texts():
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        calls = [n.exc for n in ast.walk(tree) if isinstance(n, ast.Raise) and isinstance(n.exc, ast.Call)]
        if any(getattr(call.func, "id", "") in ERRORS for call in calls):
            raising.add(str(Path(path).parent))
    covered = {str(Path(path).parent) for message in quoted() for path in where(message)}
    assert sorted(raising - covered - OWN) == []
