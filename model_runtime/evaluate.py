"""Evaluate a model on its test set, beside its base: predictions to read, metrics with their uncertainty."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_runtime.data.dataset import DataSet, read_dataset
from model_runtime.data.examples import Example
from model_runtime.data.split import FILE as SPLIT
from model_runtime.errors import ModelError
from model_runtime.evaluation.bootstrap import DRAWS, LEVEL, Compared, compare
from model_runtime.evaluation.predict import Answer, predict, target_losses
from model_runtime.evaluation.scores import Score, label_scores, perplexity_score, text_scores
from model_runtime.evaluation.signs import signs, summary
from model_runtime.load import LoadOptions, Local, fetch, load
from model_runtime.parameters import Sampling
from model_runtime.progress import Lines
from model_runtime.writable import check_writable

PREDICTIONS, REPORT = "predictions.jsonl", "evaluation.json"
FORMAT = "berth-evaluation/1"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """`limit`: examples at most, the first ones; 0: all. `base`: empty for the artifact's own, "none" for none."""

    data: str = ""
    validation: str = ""
    test: str = ""
    form: str = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    split: Path | None = None
    part: str = "test"
    base: str = ""
    prompt: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    batch_size: int = 16
    limit: int = 0
    draws: int = DRAWS
    seed: int = 0
    parquet: bool = False
    load: LoadOptions = field(default_factory=LoadOptions)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is evaluated: the model's location and what its artifact says of it (`record` empty for a plain model)."""

    model: str
    record: dict[str, Any]
    folder: Path | None


def subject_of(location: str) -> Subject:
    """`location` as an artifact that fine-tuning left, or as any model. Raises `ModelError` for a broken artifact."""
    folder = Path(location).expanduser()
    record = folder / "training.json"
    if not record.is_file():
        return Subject(location, {}, None)
    try:
        return Subject(str(folder / "model"), json.loads(record.read_text(encoding="utf-8")), folder)
    except ValueError as error:
        raise ModelError(f"{record} is no JSON: {error}; python -m model_runtime.artifacts verify {folder}") from error


def evaluate(location: str, out: Path, options: Options, *, say: Say | None = None) -> dict[str, Any]:
    """Write predictions and report into `out` and return the report. Raises `ModelError`."""
    say = say or (lambda _: None)
    subject = subject_of(location)
    settings = subject.record.get("settings", {})
    data = _data(subject, settings, options)
    if options.part not in data.parts:
        raise ModelError(f"the data has no {options.part} part, only {', '.join(data.parts)}; name another, or a file")
    examples = list(data.parts[options.part])[: options.limit or None]
    prompt = options.prompt or str(subject.record.get("prompt") or "{input}")
    base = options.base or _own_base(subject, data)
    models = {"model": subject.model, **({"base": base} if base and base != "none" else {})}
    # Hours of answers hang on these: a base that cannot be had and a place that cannot be written are said first.
    check_writable(out)
    there = {name: fetch(where, Lines(say)) for name, where in models.items()}
    answers: dict[str, list[Answer]] = {}
    scores: dict[str, list[Score]] = {}
    for name, where in models.items():
        say(f"{name}: {where}")
        answers[name], scores[name] = _of_one(where, there[name], examples, prompt, options, say)
    compared = _compared(scores, options)
    report = {
        "format": FORMAT,
        "model": location,
        "base": models.get("base"),
        "form": data.form,
        "part": options.part,
        "examples": len(examples),
        "data_sha256": data.hashes,
        "prompt": prompt,
        "sampling": {
            "temperature": options.sampling.temperature,
            "top_p": options.sampling.top_p,
            "max_new_tokens": options.sampling.max_new_tokens,
            "seed": options.sampling.seed,
        },
        "bootstrap": {"draws": options.draws, "level_percent": 100 * LEVEL, "seed": options.seed},
        "metrics": [c.to_json() for c in compared],
        "signs": _signs(examples, answers) if data.form in ("seq2seq", "chat") else None,
    }
    out.mkdir(parents=True, exist_ok=True)
    rows = _rows(examples, answers, data)
    _write(out / PREDICTIONS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if options.parquet:
        _write_parquet(out / "predictions.parquet", rows)
    _write(out / REPORT, json.dumps(report, indent=2) + "\n")
    return report


def _own_base(subject: Subject, data: DataSet) -> str:
    """What the artifact was made from; nothing for a classifier, whose base has no head for these classes."""
    if not subject.record or data.form == "classification":
        return ""
    trained = str(subject.record["settings"]["model"])
    return trained if Path(trained).is_dir() else str(subject.record["base"]["model"])


def _data(subject: Subject, settings: dict[str, Any], options: Options) -> DataSet:
    """The data that the model was trained with, as it was split then, unless other data are named."""
    location = options.data or str(settings.get("data", ""))
    if not location:
        raise ModelError(f"{subject.model} does not say what it was trained with; give the data")
    split = options.split
    own = subject.folder / SPLIT if subject.folder is not None else None
    if split is None and own is not None and own.is_file() and not options.data:
        split = own
    trained = not options.data
    return read_dataset(
        location,
        validation=options.validation or (str(settings.get("validation", "")) if trained else ""),
        test=options.test or (str(settings.get("test", "")) if trained else ""),
        form=options.form if options.form != "auto" or not trained else str(settings.get("form", "auto")),
        names=options.columns or (settings.get("columns", {}) if trained else {}),
        split_file=split,
        seed=int(settings.get("seed", 0)),
        validation_share=float(settings.get("validation_share", 0.05)),
        test_share=float(settings.get("test_share", 0.1)),
    )


def _of_one(
    where: str, local: Local, examples: Sequence[Example], prompt: str, options: Options, say: Say
) -> tuple[list[Answer], list[Score]]:
    loaded = load(where, options.load, progress=Lines(say), local=local)
    form = examples[0].form
    if (loaded.architecture == "encoder-only") != (form == "classification"):
        raise ModelError(f"{where} is {loaded.architecture}, which does not answer data of the form {form}")
    try:
        answers: list[Answer] = []
        scores: list[Score] = []
        if form != "causal":
            answers = predict(loaded, examples, options.sampling, prompt=prompt, batch_size=options.batch_size, say=say)
            said, wanted = [a.text for a in answers], [e.answer for e in examples]
            scores = label_scores(said, wanted) if form == "classification" else text_scores(said, wanted)
        if form != "classification":
            scores.append(perplexity_score(target_losses(loaded, examples, prompt=prompt)))
        return answers, scores
    finally:
        del loaded
        gc.collect()


def _compared(scores: dict[str, list[Score]], options: Options) -> list[Compared]:
    base = {score.name: score for score in scores.get("base", [])}
    return [
        compare(
            score,
            # A base with another tokenizer cuts other examples, and its perplexity is of other tokens.
            other if (other := base.get(score.name)) is not None and len(other.rows) == len(score.rows) else None,
            draws=options.draws,
            seed=options.seed,
        )
        for score in scores["model"]
    ]


def _signs(examples: Sequence[Example], answers: dict[str, list[Answer]]) -> dict[str, Any]:
    return {
        name: summary([_sign(e, a) for e, a in zip(examples, given, strict=True)]) for name, given in answers.items()
    }


def _sign(example: Example, answer: Answer) -> dict[str, Any]:
    return signs(answer.text, example.asked, example.answer, answer.finish_reason)


def _rows(examples: Sequence[Example], answers: dict[str, list[Answer]], data: DataSet) -> list[dict[str, Any]]:
    """One row an example, as the review page reads them."""
    rows = []
    for i, example in enumerate(examples):
        row: dict[str, Any] = {
            "index": i,
            "line": example.line,
            "form": data.form,
            "input": example.asked,
            "target": example.answer,
        }
        for name, given in answers.items():
            if not given:
                continue
            answer = given[i]
            row |= {
                "prediction" if name == "model" else "base_prediction": answer.text,
                f"{name}_tokens": answer.tokens,
                f"{name}_finish_reason": answer.finish_reason,
                f"{name}_truncated_tokens": answer.truncated_tokens,
                f"{name}_exact": answer.text.strip() == example.answer.strip(),
                f"{name}_signs": _sign(example, answer) if data.form != "classification" else None,
                f"{name}_probability": answer.probability,
            }
        rows.append(row)
    return rows


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    draft = path.with_name(f"{path.name}.tmp")
    pq.write_table(pa.Table.from_pylist(rows), draft)
    draft.replace(path)
