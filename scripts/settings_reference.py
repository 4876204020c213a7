"""Writes docs/settings.md and Pulumi.yaml from the settings' models. Run by `make docs`."""

from __future__ import annotations

from infra.settings_reference import page
from infra.stack_files import ROOT, render_project, write_text

SETTINGS_PAGE = ROOT / "docs" / "settings.md"
PROJECT_FILE = ROOT / "Pulumi.yaml"


def main() -> None:
    write_text(SETTINGS_PAGE, page())
    write_text(PROJECT_FILE, render_project())


if __name__ == "__main__":
    main()
