"""What `berth data check` finds in a data set before a GPU is paid for: broken, cut, doubled, leaked, private rows."""

from __future__ import annotations

from collections import Counter as Counted
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_runtime.data.examples import Example, Problem, normalised
from model_runtime.data.lengths import Counter, histogram, percentile
from model_runtime.data.personal import KINDS, personal
from model_runtime.data.read import Table

SHOWN = 5
"""Line numbers that are given of one kind of finding."""
RARE = 10
"""A class with fewer examples is hardly learned."""
_BATCH = 512


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens that the model takes. `shared`: prompt and answer are one sequence (decoder-only)."""

    tokens: int | None
    shared: bool
    source: str


@dataclass(frozen=True, slots=True)
class Report:
    """`document` is what `--json` prints; `errors` and `warnings` count findings."""

    document: dict[str, Any]
    errors: int
    warnings: int


def check(
    tables: Mapping[str, Table], parts: Mapping[str, Sequence[Example]], counter: Counter, window: Window
) -> Report:
    """Examine the files of `tables` and the `parts` (train, validation, test) that they make.

    Repeated rows, leaks and rare classes are warnings; rows that cannot be used are errors, and so is a file of
    another form than the first. Numbers of lines are those of the row's own file.
    """
    problems = {name: list(table.problems) for name, table in tables.items()}
    first = next(iter(tables.values()))
    for name, table in tables.items():
        if table.form != first.form:
            problems[name].append(Problem(1, "form", f"is {table.form}, the others are {first.form}"))
    every = [e for table in tables.values() for e in table.examples]
    duplicates, conflicts, leaks = _duplicates(tables), _conflicts(tables), _leaks(parts)
    private = _personal(tables)
    tokens = _tokens(every, counter, window)
    listed = [p for name in tables for p in problems[name]]
    errors = sum(p.severity == "error" for p in listed)
    found = (*duplicates, *leaks, *private)
    warned = sum(d["rows"] for d in found) + sum(c["groups"] for c in conflicts)
    warned += sum(p.severity == "warning" for p in listed)
    document = {
        "form": first.form,
        "files": [
            {
                "part": name,
                "location": table.location,
                "sha256": table.sha256,
                "rows": table.rows,
                "usable": len(table.examples),
                "columns": list(table.columns),
                "problems": _by_kind(problems[name]),
            }
            for name, table in tables.items()
        ],
        "parts": {name: len(examples) for name, examples in parts.items()},
        "tokens": tokens,
        "duplicates": duplicates,
        "conflicts": conflicts,
        "leaks": leaks,
        "personal": private,
        "labels": _labels(parts) if first.form == "classification" else None,
        "errors": errors,
        "warnings": warned,
    }
    return Report(document, errors, warned)


def _by_kind(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        groups[(problem.kind, problem.severity)].append(problem)
    return [
        {
            "kind": kind,
            "severity": severity,
            "count": len(found),
            "lines": [p.line for p in found[:SHOWN]],
            "example": found[0].message,
        }
        for (kind, severity), found in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]


def _duplicates(tables: Mapping[str, Table]) -> list[dict[str, Any]]:
    """Rows of a file that say what an earlier row says."""
    found = []
    for name, table in tables.items():
        seen: dict[str, int] = {}
        again = []
        for example in table.examples:
            key = normalised(f"{example.asked}\n{example.answer}")
            if key in seen:
                again.append((example.line, seen[key]))
            else:
                seen[key] = example.line
        if again:
            pairs = [{"line": line, "first_line": first} for line, first in again[:SHOWN]]
            found.append({"part": name, "rows": len(again), "pairs": pairs})
    return found


def _conflicts(tables: Mapping[str, Table]) -> list[dict[str, Any]]:
    """Inputs of a file that have more than one answer."""
    found = []
    for name, table in tables.items():
        if table.form == "causal":
            continue
        answers: dict[str, dict[str, int]] = defaultdict(dict)
        for example in table.examples:
            answers[normalised(example.asked)].setdefault(normalised(example.answer), example.line)
        split = [sorted(lines.values()) for lines in answers.values() if len(lines) > 1]
        if split:
            found.append({"part": name, "groups": len(split), "lines": [lines[:SHOWN] for lines in split[:SHOWN]]})
    return found


def _leaks(parts: Mapping[str, Sequence[Example]]) -> list[dict[str, Any]]:
    """Rows of validation and test whose input the model is trained with."""
    found = []
    trained: dict[str, int] = {}
    for example in parts.get("train", ()):
        trained.setdefault(normalised(example.asked), example.line)
    for name in ("validation", "test"):
        leaked = [(e.line, trained[k]) for e in parts.get(name, ()) if (k := normalised(e.asked)) in trained]
        if leaked:
            pairs = [{"line": line, "train_line": train} for line, train in leaked[:SHOWN]]
            found.append({"part": name, "rows": len(leaked), "pairs": pairs})
    return found


def _personal(tables: Mapping[str, Table]) -> list[dict[str, Any]]:
    lines: dict[tuple[str, str], list[int]] = defaultdict(list)
    for name, table in tables.items():
        for example in table.examples:
            for kind in personal(example.whole):
                lines[(name, kind)].append(example.line)
    ordered = sorted(lines.items(), key=lambda item: (list(tables).index(item[0][0]), KINDS.index(item[0][1])))
    return [{"part": p, "kind": k, "rows": len(found), "lines": found[:SHOWN]} for (p, k), found in ordered]


def _labels(parts: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
    counts = {name: Counted(e.target for e in examples) for name, examples in parts.items()}
    every = sum(counts.values(), Counted())
    train = counts.get("train", Counted())
    return {
        "classes": [
            {"label": label, "rows": rows, **{name: counts[name][label] for name in parts}}
            for label, rows in every.most_common()
        ],
        "rare": sorted(label for label in every if train[label] < RARE),
        "untrained": sorted(label for label in every if not train[label]),
    }


def _tokens(examples: Sequence[Example], counter: Counter, window: Window) -> dict[str, Any]:
    """Lengths of inputs and answers, and how many the window would cut."""
    inputs = _counts([e.asked for e in examples], counter)
    both = any(e.answer for e in examples) and examples[0].form != "classification"
    answers = _counts([e.answer for e in examples], counter) if both else []
    joined = window.shared and bool(answers)
    sequences = [a + b for a, b in zip(inputs, answers, strict=True)] if joined else inputs
    document: dict[str, Any] = {
        "how": counter.how,
        "exact": counter.exact,
        "window": window.tokens,
        "window_source": window.source,
        "shared_window": window.shared,
        "total": sum(inputs) + sum(answers),
        "input": _summary(inputs, None if joined else window.tokens),
        "answer": _summary(answers, None if window.shared else window.tokens) if answers else None,
        "sequence": _summary(sequences, window.tokens) if joined else None,
    }
    cut = 0
    if window.tokens is not None:
        limit = window.tokens
        cut = sum(n > limit for n in sequences)
        if not window.shared and answers:
            cut = sum(a > limit or b > limit for a, b in zip(inputs, answers, strict=True))
    document["cut"] = cut
    document["cut_percent"] = round(100 * cut / max(1, len(examples)), 2)
    return document


def _counts(texts: Sequence[str], counter: Counter) -> list[int]:
    return [n for i in range(0, len(texts), _BATCH) for n in counter.count(texts[i : i + _BATCH])]


def _summary(values: Sequence[int], window: int | None) -> dict[str, Any] | None:
    if not values:
        return None
    ordered = sorted(values)
    return {
        "mean": round(sum(ordered) / len(ordered), 1),
        "median": percentile(ordered, 0.5),
        "p95": percentile(ordered, 0.95),
        "longest": ordered[-1],
        "histogram": histogram(ordered, window),
    }
