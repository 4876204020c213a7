"""The report as one HTML file: everything inline, no script, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from berth.report import svg
from berth.report.blocks import Report
from berth.report.documents import KINDS


def asset(package: str, name: str) -> str:
    return files(package).joinpath("assets", name).read_text(encoding="utf-8")


def hash_of(text: str) -> str:
    """`'sha256-…'` of an inline script or style as a Content-Security-Policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def environment(package: str) -> Any:
    """jinja2 over `package`/assets, escaping everything that is not `Markup`."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        loader=FunctionLoader(lambda name: asset(package, name)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(report: Report) -> str:
    """The page. Whatever comes from the documents stands in it escaped."""
    style = asset("berth.report", "report.css")
    template = environment("berth.report").get_template("report.html.j2")
    page: str = template.render(
        report=report,
        style=Markup(style),  # noqa: S704 (Berth's own file, not input)
        style_hash=hash_of(style),
        svg=svg,
        kinds=KINDS,
        kind_of=lambda block: type(block).__name__,
    )
    return page
