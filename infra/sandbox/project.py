"""A copy of a person's project whose `aws` provider is the sandbox's, for Pulumi's own engine.

The engine starts a provider from a folder with a `PulumiPlugin.yaml`; the folder is written here, because it names the
virtual environment in use, which no two machines have in the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.sandbox.variable import ENDPOINT
from infra.stack_files import ROOT, dump_yaml, load_yaml, write_text
from sizing.errors import UserError

PLUGIN = "plugin"
"""Folder of the provider in the copy."""
_ORIGINS = "origins"
"""Folder of the stack files as they were copied, by which a change of the person's is told from a recorded choice."""
_MAIN = '''"""What Pulumi's engine starts as the provider `aws`: the sandbox's, of the package `infra`."""

import sys

from infra.sandbox.serve import serve

serve(sys.argv[1:])
'''


def sandbox_project(root: Path, folder: Path, virtualenv: Path) -> Path:
    """Write the project at `root`, with the sandbox's provider, into `folder`, which is returned.

    Programs and provider run in `virtualenv`, where Berth is installed. A stack file in `folder` is replaced only where
    the person's has changed since, so that what was recorded in the copy, as the moment of expiry, is kept.
    Raises `UserError` for a project that cannot be read and a folder that cannot be written.
    """
    document = load_yaml(root / "Pulumi.yaml")
    document["main"] = str(ROOT / "infra")
    document["runtime"] = _runtime(virtualenv)
    document["plugins"] = {"providers": [{"name": "aws", "path": PLUGIN}]}
    document.pop("backend", None)  # the sandbox's state is its own
    try:
        write_text(folder / PLUGIN / "PulumiPlugin.yaml", dump_yaml({"runtime": _runtime(virtualenv)}))
        write_text(folder / PLUGIN / "__main__.py", _MAIN)
        write_text(folder / "Pulumi.yaml", dump_yaml(document))
        for path in sorted((root / "stacks").glob("Pulumi.*.yaml")):
            _copy_stack(path, folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}; BERTH_CACHE_DIR names another") from None
    return folder


def engine_environment(endpoint: str, state_folder: Path) -> dict[str, str]:
    """What a `pulumi` command needs in its environment to keep to the sandbox at `endpoint`.

    State is a folder below `state_folder`, which is made; nothing of a person's own login, plugins or backend is read
    or changed, and nothing is downloaded. The passphrase is empty: a sandbox has no secrets.
    """
    state, home = state_folder / "state", state_folder / "home"
    for path in (state, home):
        path.mkdir(parents=True, exist_ok=True)
    return {
        ENDPOINT: endpoint,
        # Without the files beside each file in which its attributes would stand: a command that is killed while it
        # writes one leaves it empty, and no other can read the state then (gocloud.dev/blob/fileblob, setAttrs).
        "PULUMI_BACKEND_URL": f"{state.resolve().as_uri()}?metadata=skip",
        "PULUMI_HOME": str(home.resolve()),
        "PULUMI_CONFIG_PASSPHRASE": "",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
    }


def _runtime(virtualenv: Path) -> dict[str, Any]:
    return {"name": "python", "options": {"toolchain": "pip", "virtualenv": str(virtualenv)}}


def _copy_stack(path: Path, folder: Path) -> None:
    text = path.read_text(encoding="utf-8")
    copy, origin = folder / "stacks" / path.name, folder / _ORIGINS / path.name
    if copy.is_file() and origin.is_file() and origin.read_text(encoding="utf-8") == text:
        return
    document = load_yaml(path)
    if copy.is_file():
        _keep(document, load_yaml(copy))
    write_text(copy, dump_yaml(document))
    write_text(origin, text)


def _keep(document: dict[str, Any], copy: Mapping[str, Any]) -> None:
    """Take over from the earlier copy the moment of expiry, while the time to live is the same, and Pulumi's salt."""
    if "encryptionsalt" in copy:
        document["encryptionsalt"] = copy["encryptionsalt"]
    config, before = document.get("config"), copy.get("config")
    if not isinstance(config, dict) or not isinstance(before, Mapping):
        return
    lives, expires = "berth:time_to_live", "berth:expires_at"
    if expires in before and config.get(lives) == before.get(lives):
        config.setdefault(expires, before[expires])
