"""The house rules that a machine can check: what is documented, what imports what, what a committed file may hold."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from berth.cli import app
from scripts.commands_reference import PAGE, render, walk

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("berth", "sizing", "infra", "model_runtime")
MAY_IMPORT = {
    "sizing": {"sizing"},
    "model_runtime": {"model_runtime", "sizing"},
    "infra": {"infra", "sizing", "model_runtime"},
    "berth": set(PACKAGES),
}
HEAVY = {
    "accelerate", "boto3", "botocore", "deepspeed", "httpx", "matplotlib", "moto", "numpy", "peft", "pulumi",
    "pydantic", "rich", "tokenizers", "torch", "transformers", "typer",
}  # fmt: skip
LONGEST = 500

# Hosts are put together here so that this file itself holds none of them.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"), ("yarnpkg", "com"),
        ("maven", "org"), ("maven", "apache", "org"), ("crates", "io"), ("proxy", "golang", "org"),
        ("download", "pytorch", "org"), ("conda", "anaconda", "org"), ("deb", "debian", "org"),
    )
]  # fmt: skip
INDEX_OPTION = re.compile(r"(?<!no-emit-)\b(extra-)?index-" + r"url\b")
MACHINE_PATH = re.compile(r"(?<![\w.~:/-])(/(work|home|root|Users|private|mnt)/[\w.-]+|[A-Z]:\\\\?Users\b)")
OUTSIDE = re.compile(r"\.\./" + r"shared\b")


@cache
def files() -> tuple[Path, ...]:
    """Every file that is, or would be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    return tuple(p for name in listed.stdout.decode().split("\0") if name and (p := ROOT / name).is_file())


def modules(package: str) -> list[Path]:
    return [p for p in files() if p.suffix == ".py" and p.relative_to(ROOT).parts[0] == package]


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def found(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {match.group()}"
        for path in files()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        for match in pattern.finditer(line)
    ]


def commands() -> list[tuple[str, Any, Any]]:
    return list(walk(typer.main.get_command(app)))


def test_every_command_and_every_option_has_help() -> None:
    without = []
    for name, command, _ in commands():
        if not (command.help or "").strip():
            without.append(name)
        for parameter in command.params:
            if not (getattr(parameter, "help", "") or "").strip():
                without.append(f"{name} {parameter.opts[0]}")
    assert without == []


def test_no_command_offers_to_change_the_shell() -> None:
    assert not [name for name, command, _ in commands() for p in command.params if "--install-completion" in p.opts]


def test_the_command_reference_is_what_the_commands_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "docs/commands.md is not up to date; run `make docs`"


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_in_one_direction_only(package: str) -> None:
    wrong = []
    for path in modules(package):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""] if node.level == 0 else []
            else:
                continue
            tops = {name.split(".")[0] for name in names}
            wrong += [f"{path.relative_to(ROOT)} imports {top}" for top in tops & set(PACKAGES) - MAY_IMPORT[package]]
    assert wrong == []


def test_importing_all_of_sizing_loads_nothing_heavy() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in modules("sizing")
    ]
    program = (
        "import importlib, json, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(json.dumps(list(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 0, ran.stderr
    assert {name.split(".")[0] for name in json.loads(ran.stdout)} & HEAVY == set()


def test_every_package_and_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in modules(package)
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    folders = {path.parent for package in PACKAGES for path in modules(package)}
    silent += [str(f.relative_to(ROOT)) for f in sorted(folders) if not (f / "__init__.py").is_file()]
    assert silent == []


def test_no_python_file_is_too_long_to_read_in_one_go() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in files()
        if path.suffix == ".py" and (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    }
    assert long == {}


def test_no_committed_file_names_a_package_registry() -> None:
    hosts = re.compile("|".join(re.escape(host) for host in REGISTRIES))
    assert found(hosts) + found(INDEX_OPTION) == []


def test_no_committed_file_holds_a_path_of_one_machine() -> None:
    assert found(MACHINE_PATH) + found(OUTSIDE) == []


def pinned(name: str) -> dict[str, str]:
    """Package to version in `requirements/NAME.txt`; of several by Python version, the first."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    pins: dict[str, str] = {}
    for block in re.split(r"\n(?=\S)", text.strip()):
        match = re.match(r"([\w.\[\]-]+)==([\w.+!-]+)", block)
        assert match, f"not pinned: {block.splitlines()[0]}"
        assert "--hash=sha256:" in block, f"not hashed: {match.group()}"
        pins.setdefault(canonicalize_name(match[1].split("[")[0]), match[2])
    return pins


def test_the_requirements_are_pinned_hashed_and_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for name, wanted in (
        ("base", project["dependencies"]),
        ("demo", [*project["dependencies"], *extras["runtime"], *extras["sandbox"]]),
        ("test", [*project["dependencies"], *extras["runtime"], *extras["dev"]]),
    ):
        pins = pinned(name)
        for requirement in map(Requirement, wanted):
            version = pins.get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement.name} is not in requirements/{name}.txt; run `make lock`"
            assert requirement.specifier.contains(Version(version), prereleases=True), (
                f"{requirement}: {version} is pinned"
            )
    assert "uv" in pinned("uv")


def test_the_base_install_stays_light() -> None:
    assert set(pinned("base")) & {"torch", "transformers", "numpy", "deepspeed", "moto", "pytest"} == set()


def code_lines(page: str) -> list[str]:
    """Lines of the fenced blocks of a page, prompts taken off."""
    blocks = re.findall(r"```\w*\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_commands_that_a_page_names_exist(page: str) -> None:
    known = {name: command for name, command, _ in commands()}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z-]+)", text) + [
        line.split()[1] for line in code_lines(page) if line.startswith("make ")
    ]:
        assert target in targets, f"{page} names `make {target}`"
    lines = re.findall(r"`(berth [^`\n]+)`", text) + [line for line in code_lines(page) if line.startswith("berth ")]
    assert lines
    for line in lines:
        words = line.split()
        name = max((n for n in known if line == n or line.startswith(f"{n} ")), key=len)
        options = {flag for parameter in known[name].params for flag in parameter.opts} | {"--help", "-h"}
        if name == "berth" and len(words) > 1:
            assert words[1].startswith("-"), f"{page} names `{line}`, which is no command"
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in options, f"{page}: {name} has no {word}"


def test_the_page_of_rooms_names_every_room() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rooms = {path.relative_to(ROOT).parts[0] for path in files() if len(path.relative_to(ROOT).parts) > 1}
    missing = [room for room in sorted(rooms) if not room.startswith(".") and f"`{room}/" not in readme]
    assert missing == [], "the README's map of the rooms lacks them"


def test_the_index_of_the_documentation_names_every_page_and_no_other() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in files() if path.parent == ROOT / "docs" and path.suffix == ".md"} - {"README.md"}
    assert set(re.findall(r"\]\(([\w.-]+\.md)\)", index)) == pages


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in files()
        if page.suffix == ".md"
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text_of(page))
        if not (page.parent / target).exists()
    ]
    assert broken == []
