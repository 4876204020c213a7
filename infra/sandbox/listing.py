"""What stands in the sandbox by its tags, asked of AWS and not of Berth's own notes, so that nothing hides."""

from __future__ import annotations

from infra.inventory import Found, listed
from infra.sandbox.aws import Aws
from infra.sandbox.provider import asking
from infra.settings import PROJECT


def tagged(aws: Aws, project: str = PROJECT) -> list[Found]:
    """Every living resource with the tag of the project, by id: as `infra.inventory` lists it, asked of moto.

    Routes, policies and bucket settings have no tags: they go with what they belong to, and are read one by one.
    Raises `RefusedError`, which says so where moto lacks a call.
    """
    with asking("what has", f"the tag project={project}", "to list it"):
        return listed(aws, project=project)
