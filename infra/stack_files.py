"""`Pulumi.yaml` and the stack files under `stacks/`: where they lie, how they are read, how a value is written down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from infra.settings import PROJECT, Keys, MachineSettings, Settings, read_settings
from sizing.errors import UserError, unknown
from sizing.files import write_whole

ROOT = Path(__file__).resolve().parent.parent
"""Berth's own project; a person's is the folder that holds their `Pulumi.yaml`."""
REGION_KEY = "aws:region"
_FOREIGN = frozenset({REGION_KEY, "aws:profile", "aws:allowedAccountIds", "aws:assumeRoles", "aws:defaultTags"})
"""Keys of other namespaces that a stack file may hold; Berth reads the region."""
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
# The longest name made from it, of a role with the provider's suffix, must fit the 64 characters of IAM.
_STACK = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,35}")
_TYPES = {"string": "string", "integer": "integer", "boolean": "boolean", "array": "array"}
PROJECT_DESCRIPTION = "Open language models on AWS: inference hosts, SageMaker endpoints, training nodes."


def yaml() -> YAML:
    """A reader and writer that keeps comments, order and quotes."""
    engine = YAML()
    engine.preserve_quotes = True
    engine.width = 120
    engine.indent(mapping=2, sequence=4, offset=2)
    return engine


@dataclass(frozen=True, slots=True)
class StackFile:
    """A stack as its file says: its name, region, settings, and the keys that were given."""

    name: str
    path: Path
    region: str
    settings: Settings
    given: Mapping[str, Any]

    @property
    def shared_name(self) -> str:
        """The shared stack that it takes its artifacts from; empty for a shared stack itself."""
        return self.settings.shared_name if isinstance(self.settings, MachineSettings) else ""


def project_root(start: Path | None = None) -> Path:
    """The folder of the nearest `Pulumi.yaml` upwards of `start` (the current folder); else Berth's own project."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "Pulumi.yaml").is_file():
            return folder
    if (ROOT / "Pulumi.yaml").is_file():
        return ROOT
    raise UserError(f"no Pulumi.yaml in {here} or above it; run berth inside the project")


def stack_path(name: str, root: Path) -> Path:
    """Where the file of the stack `name` lies. Raises `UserError` for a name that Pulumi or AWS would not take."""
    if not _STACK.fullmatch(name):
        raise UserError(
            f"'{name}' is no stack name: a letter, then up to 35 letters, digits and hyphens, such as inference-dev"
        )
    return root / "stacks" / f"Pulumi.{name}.yaml"


def stack_names(root: Path) -> list[str]:
    """The stacks that have a file, by name."""
    return sorted(p.name.removeprefix("Pulumi.").removesuffix(".yaml") for p in (root / "stacks").glob("Pulumi.*.yaml"))


def load_yaml(path: Path) -> CommentedMap:
    """The mapping that a YAML file holds. Raises `UserError` with the place where it is none."""
    try:
        document = yaml().load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        line = f" line {place.line + 1}:" if place is not None else ":"
        raise UserError(f"{path}{line} {getattr(error, 'problem', None) or 'is not text in UTF-8'}") from None
    if not isinstance(document, CommentedMap):
        raise UserError(f"{path} holds no keys; it must begin with `config:`")
    return document


def read_stack(name: str, root: Path | None = None) -> StackFile:
    """The stack `name` of the project. Raises `UserError` for one that is unknown, and for every wrong key by name."""
    base = root or project_root()
    path = stack_path(name, base)
    if not path.is_file():
        raise unknown("stack", name, stack_names(base), f"`berth new {name} --role … --model …` writes it")
    document = load_yaml(path)
    config = document.get("config")
    if not isinstance(config, Mapping):
        raise UserError(f"{path} has no `config:`")
    region, given = split_config({str(k): plain(v) for k, v in config.items()}, name)
    return StackFile(name, path, region, read_settings(given, name), given)


def split_config(config: Mapping[str, Any], stack: str) -> tuple[str, dict[str, Any]]:
    """The region and Berth's own keys, without their namespace. Raises `UserError` for a key of neither."""
    given: dict[str, Any] = {}
    for key, value in config.items():
        namespace, colon, name = key.partition(":")
        if not colon:
            raise UserError(f"stack {stack}: the key '{key}' needs a namespace: {PROJECT}:{key}")
        if namespace == PROJECT:
            given[name] = value
        elif key not in _FOREIGN:
            raise unknown(f"key of stack {stack}", key, [*_FOREIGN, *(f"{PROJECT}:{k}" for k in Keys.all())])
    region = config.get(REGION_KEY)
    if not isinstance(region, str) or not _REGION.fullmatch(region):
        said = "is missing" if region is None else f"is '{region}'"
        raise UserError(f"stack {stack}: {REGION_KEY} {said}; it must be a region such as us-east-1")
    return region, given


def plain(value: Any) -> Any:
    """ruamel's lists, mappings and strings as Python's own."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, str) else value


def write_text(path: Path, text: str) -> None:
    """Replace the file whole or leave it as it was; its folder is made. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())


def dump_yaml(document: Any) -> str:
    text = StringIO()
    yaml().dump(document, text)
    return text.getvalue()


def record(path: Path, values: Mapping[str, Any]) -> None:
    """Write keys of Berth's namespace into a stack file, None takes one out; its comments and other keys stay."""
    document = load_yaml(path)
    for key, value in values.items():
        if value is None:
            document["config"].pop(f"{PROJECT}:{key}", None)
        else:
            document["config"][f"{PROJECT}:{key}"] = value
    write_text(path, dump_yaml(document))


def render_stack(region: str, values: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    """A new stack file: the region, then `values` in the order given, each with its comment where it has one."""
    config = CommentedMap({REGION_KEY: region})
    for key, value in values.items():
        config[f"{PROJECT}:{key}"] = value
        if comments.get(key):
            config.yaml_set_comment_before_after_key(f"{PROJECT}:{key}", before=comments[key], indent=2)
    return dump_yaml(CommentedMap({"config": config}))


def config_declarations() -> dict[str, dict[str, Any]]:
    """The `config` section of `Pulumi.yaml`: type, description and default of every key, from the settings' models."""
    declared: dict[str, dict[str, Any]] = {}
    for key, (field, roles) in Keys.all().items():
        schema = _schema_type(field.annotation)
        entry: dict[str, Any] = {"type": schema}
        if schema == "array":
            entry["items"] = {"type": "string"}
        of = "" if len(roles) == 4 else f" ({', '.join(roles)})"
        entry["description"] = f"{field.description}{of}"
        if field.default is not PydanticUndefined:
            # Pulumi's configuration has no type for fractions.
            entry["default"] = f"{field.default:g}" if isinstance(field.default, float) else field.default
        declared[key] = entry
    return declared


def _schema_type(annotation: Any) -> str:
    if annotation in (int, bool):
        return "integer" if annotation is int else "boolean"
    return "array" if annotation == list[str] else "string"


def render_project() -> str:
    """`Pulumi.yaml` as a whole; a test keeps the committed file equal to it."""
    document = CommentedMap(
        {
            "name": PROJECT,
            "description": PROJECT_DESCRIPTION,
            "main": "infra/",
            "stackConfigDir": "stacks",
            "runtime": {"name": "python", "options": {"toolchain": "pip", "virtualenv": ".venv"}},
            "config": config_declarations(),
        }
    )
    document.yaml_set_start_comment(
        "Written by scripts/settings_reference.py from infra/settings.py.\n"
        "A key without a default must stand in every stack."
    )
    return dump_yaml(document)
