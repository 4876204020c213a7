"""A copy of a person's project whose `aws` provider is the sandbox's, for Pulumi's own engine."""

from __future__ import annotations

import shutil
from pathlib import Path

from infra.stack_files import ROOT, dump_yaml, load_yaml, write_text

PLUGIN = Path(__file__).resolve().parent / "plugin"


def write_project(root: Path, folder: Path, virtualenv: Path) -> Path:
    """Write `Pulumi.yaml` and the stack files of the project at `root` into `folder`, which is returned.

    The programs run in `virtualenv`, where Berth is installed. Raises `UserError` for a project that cannot be read.
    """
    document = load_yaml(root / "Pulumi.yaml")
    document["main"] = str(ROOT / "infra")
    document["runtime"]["options"]["virtualenv"] = str(virtualenv)
    document["plugins"] = {"providers": [{"name": "aws", "path": str(PLUGIN)}]}
    write_text(folder / "Pulumi.yaml", dump_yaml(document))
    shutil.copytree(root / "stacks", folder / "stacks", dirs_exist_ok=True)
    return folder
