"""The catalogue: open models as data (`data/models.csv`, `data/configs.json`), read once and built when asked for.

`models.csv` says what a model is called, how many parameters its checkpoint holds, who may use it and for what, each
with source and date; `configs.json` holds the keys of the published `config.json` that shape it. The columns are
described in `docs/models.md`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

from sizing.errors import UserError
from sizing.models.facts import Architecture, LicenceVerdict, ModelFacts
from sizing.models.families.layout import Config
from sizing.models.read import facts_from_config

DATA = Path(__file__).parent / "data"
MODELS, CONFIGS = "models.csv", "configs.json"
COLUMNS = (
    "name",
    "family",
    "aliases",
    "architecture",
    "params",
    "class_params",
    "params_note",
    "context_window",
    "published_dtype",
    "licence",
    "verdict",
    "licence_reason",
    "tasks",
    "languages",
    "deployable",
    "config",
    "notes",
    "source",
    "as_of",
)
LIKENESS = 0.6
"""Ratio of `difflib.SequenceMatcher` from which a name is offered in place of one that is unknown."""
DATE = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}")
LONGEST_NAME = 200
VERDICTS: tuple[str, ...] = get_args(LicenceVerdict)
ARCHITECTURES: tuple[str, ...] = get_args(Architecture)


def quoted(text: str) -> str:
    """What a person typed, for an error message: on one line, cut where it is very long."""
    line = "".join(c if c.isprintable() else "?" for c in text)
    return f"'{line}'" if len(line) <= LONGEST_NAME else f"'{line[:LONGEST_NAME]}…'"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of `models.csv`. `params` is 0 for a closed model that publishes none."""

    name: str
    family: str
    aliases: tuple[str, ...]
    architecture: Architecture
    params: int
    class_params: int | None
    params_note: str
    context_window: int | None
    published_dtype: str
    licence: str
    verdict: LicenceVerdict
    licence_reason: str
    tasks: tuple[str, ...]
    languages: str
    deployable: bool
    config: str
    """Name of the model in `configs.json` whose shape it has; empty for a closed model."""
    notes: tuple[str, ...]
    source: str
    as_of: str

    @property
    def short_name(self) -> str:
        """The name without its organisation: `flan-t5-xl`."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called: its name, its short name, its aliases."""
        return tuple(dict.fromkeys((self.name, self.short_name, *self.aliases)))


class Catalogue(Mapping[str, ModelFacts]):
    """Name -> `ModelFacts`, in the order of the file. Tensors are laid out when a model is first asked for."""

    def __init__(self, entries: Mapping[str, Entry], configs: Mapping[str, Config]) -> None:
        self.entries = entries
        self.configs = configs
        self._names = {name.lower(): entry.name for entry in entries.values() for name in entry.names}
        self._built: dict[str, ModelFacts] = {}

    def __getitem__(self, name: str) -> ModelFacts:
        if name not in self._built:
            self._built[name] = _build(self.entries[name], self.configs)
        return self._built[name]

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that `find` knows, as written."""
        return tuple(name for entry in self.entries.values() for name in entry.names)

    def find(self, text: str) -> ModelFacts | None:
        """The model called `text`: its name or one of its aliases, in any case. None when there is none."""
        name = self._names.get(text.strip().lower())
        return None if name is None else self[name]

    def named(self, text: str) -> ModelFacts:
        """The model called `text`. Raises `UserError` with the nearest names for an unknown one."""
        facts = self.find(text)
        if facts is None:
            raise UserError(f"unknown model {quoted(text)}; {self.offer(text)}")
        return facts

    def nearest(self, text: str, limit: int = 3) -> list[str]:
        """Names most like `text`, best first; empty when none is like it.

        Those with `text` as one of their words (`bert` in `bert-base-uncased`) come before those that merely hold its
        letters (`albert-base-v2`), then the alike; the smaller model first among equals.
        """
        given = text.strip().lower()
        if len(given) > LONGEST_NAME:
            return []
        scored = []
        for entry in self.entries.values():
            likeness = max(SequenceMatcher(None, given, name.lower()).ratio() for name in entry.names)
            contained = len(given) > 2 and any(given in name.lower() for name in entry.names)
            word = any(given in re.split(r"[-/_.]", name.lower()) for name in entry.names)
            if likeness >= LIKENESS or contained or word:
                scored.append((-2.0 if word else -1.0 if contained else -likeness, entry.params, entry.name))
        return [name for _, _, name in sorted(scored)[:limit]]

    def offer(self, text: str) -> str:
        """What to try instead of an unknown `text`, for an error message."""
        near = self.nearest(text)
        return f"did you mean {', '.join(near)}?" if near else "`berth models` lists those it knows"


def _build(entry: Entry, configs: Mapping[str, Config]) -> ModelFacts:
    known: dict[str, Any] = {
        "family": entry.family,
        "params": entry.params,
        "class_params": entry.class_params,
        "params_note": entry.params_note,
        "context_window": entry.context_window,
        "published_dtype": entry.published_dtype,
        "licence": entry.licence,
        "licence_verdict": entry.verdict,
        "licence_reason": entry.licence_reason,
        "tasks": entry.tasks,
        "languages": entry.languages,
        "source": entry.source,
        "as_of": entry.as_of,
        "notes": entry.notes,
        "deployable": entry.deployable,
    }
    if not entry.config:
        return ModelFacts(
            name=entry.name,
            model_type="unknown",
            architecture=entry.architecture,
            tensors=(),
            vocab_size=0,
            tied_embeddings=False,
            **known,
        )
    try:
        facts = facts_from_config(configs[entry.config], name=entry.name, **known)
    except UserError as error:
        raise UserError(
            f"{CONFIGS}, '{entry.config}': {str(error).removeprefix('config.json').lstrip(': ')}"
        ) from error
    described = sum(t.numel for t in facts.tensors)
    if described != entry.params:
        raise UserError(
            f"{MODELS}: '{entry.name}' has {entry.params:,} parameters, '{entry.config}' of {CONFIGS} describes"
            f" {described:,}; the data is damaged, install Berth again"
        )
    return facts


def _entry(row: dict[str, str | None], where: str) -> Entry:
    if None in row or None in row.values():
        raise UserError(f"{where}: has {'more' if None in row else 'fewer'} fields than the header's {len(COLUMNS)}")
    text = cast(dict[str, str], row)

    def whole(column: str, *, empty: int | None = None) -> int | None:
        value = text[column]
        if not value and column != "params":
            return empty
        if not (value.isascii() and value.isdigit()):
            raise UserError(f"{where}: {column} is '{value}'; it must be a whole number")
        return int(value)

    def one_of(column: str, allowed: tuple[str, ...]) -> str:
        if text[column] not in allowed:
            raise UserError(f"{where}: {column} is '{text[column]}'; allowed: {', '.join(allowed)}")
        return text[column]

    for column in ("name", "family", "licence", "licence_reason", "source", "as_of"):
        if not text[column]:
            raise UserError(f"{where}: {column} is empty")
    if not DATE.fullmatch(text["as_of"]):
        raise UserError(f"{where}: as_of is '{text['as_of']}'; it must be a date such as 2026-01-31")
    deployable = one_of("deployable", ("yes", "no")) == "yes"
    return Entry(
        name=text["name"],
        family=text["family"],
        aliases=tuple(text["aliases"].split()),
        architecture=cast(Architecture, one_of("architecture", ARCHITECTURES)),
        params=whole("params") or 0,
        class_params=whole("class_params"),
        params_note=text["params_note"],
        context_window=whole("context_window"),
        published_dtype=text["published_dtype"],
        licence=text["licence"],
        verdict=cast(LicenceVerdict, one_of("verdict", VERDICTS)),
        licence_reason=text["licence_reason"],
        tasks=tuple(text["tasks"].split()),
        languages=text["languages"],
        deployable=deployable,
        config=(text["config"] or text["name"]) if deployable else "",
        notes=tuple(note.strip() for note in text["notes"].split("|") if note.strip()),
        source=text["source"],
        as_of=text["as_of"],
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); install Berth again") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: byte {error.start:,} is not UTF-8; the file is damaged, install Berth again"
        ) from error


def read_entries(path: Path) -> dict[str, Entry]:
    """The lines of a `models.csv`. Raises `UserError` with file and line for whatever is wrong with one."""
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""), strict=True)
    entries: dict[str, Entry] = {}
    taken: dict[str, str] = {}
    try:
        missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
        if missing:
            raise UserError(f"{path}, line 1: the header lacks {', '.join(missing)}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            entry = _entry(row, where)
            for name in entry.names:
                if name.lower() in taken:
                    raise UserError(f"{where}: '{name}' already names {taken[name.lower()]}")
                taken[name.lower()] = entry.name
            entries[entry.name] = entry
    except csv.Error as error:
        # `line_num` counts lines read whole; the fault is in the next one.
        raise UserError(f"{path}, line {reader.line_num + 1}: {error}") from error
    if not entries:
        raise UserError(f"{path}: holds no models; the file is cut, install Berth again")
    return entries


def read_configs(path: Path) -> dict[str, Config]:
    """The shapes of a `configs.json`. Raises `UserError` with file and line for damaged JSON."""
    try:
        configs = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}: {error.msg}; the file is damaged, install Berth again"
        ) from error
    if not isinstance(configs, dict) or not all(isinstance(c, dict) for c in configs.values()):
        raise UserError(f"{path}, line 1: must be an object of model names, each with its config's keys")
    return configs


def read_catalogue(folder: Path) -> Catalogue:
    """The catalogue in `folder`. Raises `UserError` naming file and line where the data is damaged."""
    entries, configs = read_entries(folder / MODELS), read_configs(folder / CONFIGS)
    for number, entry in enumerate(entries.values(), start=2):
        if entry.config and entry.config not in configs:
            raise UserError(f"{folder / CONFIGS}: lacks '{entry.config}', which line {number} of {MODELS} needs")
    used = {entry.config for entry in entries.values()}
    spare = next((name for name in configs if name not in used), None)
    if spare is not None:
        raise UserError(
            f"{folder / MODELS}, line {len(entries) + 1}: is cut or lacks a line: no model has the shape of '{spare}'"
            f" in {CONFIGS}; install Berth again"
        )
    return Catalogue(entries, configs)


@cache
def load_catalogue() -> Catalogue:
    """The catalogue that Berth carries; read once a process."""
    return read_catalogue(DATA)
