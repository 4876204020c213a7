"""What a bare word on the command line means: a stack of the project, or a folder."""

from __future__ import annotations

from pathlib import Path

from sizing.errors import UserError, unknown


def is_stack(what: str) -> bool:
    """Whether `what` means a stack of the project.

    A bare word is a stack or a folder; anything with a slash, a dot, a colon or a tilde is none. Raises `UserError` for
    a word that is both, and for one that is neither, with the nearest stacks.
    """
    if not what or any(sign in what for sign in "/\\:~."):
        return False
    known = _known()
    folder = Path(what).is_dir()
    if what in known and folder:
        raise UserError(f"{what} is a stack and a folder here; write ./{what} for the folder")
    if what not in known and not folder:
        raise unknown("stack or folder", what, known)
    return what in known


def _known() -> list[str]:
    from infra.stack_files import project_root, stack_names

    try:
        return stack_names(project_root())
    except UserError:
        return []  # without a project there are folders alone
