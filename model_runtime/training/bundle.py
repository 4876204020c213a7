"""The folder that a training node runs: settings, plan, and the packages that carry them out, with a manifest."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import model_runtime
import sizing
from model_runtime.errors import ModelError
from model_runtime.handler.bundle import Bundle
from model_runtime.manifest import NAME, sha256_of, write_manifest
from model_runtime.training.plan import plan_of, planned_settings
from model_runtime.training.settings import FinetuneSettings

SETTINGS = "finetune.json"
MODEL, DATA, OUTPUT = "/opt/berth/data/model", "/opt/berth/data/dataset", "/opt/berth/data/output"
"""Where a node's first start puts the base model and the data set, and where the run writes."""


def write_training_bundle(target: Path, settings: FinetuneSettings) -> Bundle:
    """Write the bundle `target`: the node runs `python -m model_runtime.finetune finetune.json` in it.

    The settings' model, data and output become the node's own places; the rest stays. The plan's files are copied and
    checked first. An earlier bundle at `target` is replaced as a whole, anything else there is refused.
    """
    planned_settings(settings, plan_of(settings))
    if target.exists() and not (target / SETTINGS).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise ModelError(f"{target} is there and is no training bundle; give a folder that is new, empty or a bundle")
    placed = replace(
        settings,
        model=MODEL,
        model_name=settings.model_name or ("" if settings.plan else settings.model),
        data=DATA,
        validation="",
        test="",
        output=OUTPUT,
        plan="plan" if settings.plan else "",
        device="auto",
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as place:
        draft = Path(place) / "new"
        draft.mkdir()
        for package in (model_runtime, sizing):
            source = Path(str(package.__file__)).parent
            shutil.copytree(source, draft / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        if settings.plan:
            shutil.copytree(settings.plan, draft / "plan")
        (draft / SETTINGS).write_text(json.dumps(placed.to_json(), indent=2) + "\n", encoding="utf-8")
        files = write_manifest(draft)
        if target.exists():
            target.rename(Path(place) / "old")
        draft.rename(target)
    return Bundle(target, files, sha256_of(target / NAME))
