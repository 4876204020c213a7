"""Files that are written whole or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from sizing.files import write_whole


def test_a_file_is_replaced_and_readable_as_a_new_one(tmp_path: Path) -> None:
    path, new = tmp_path / "a.txt", tmp_path / "new.txt"
    path.write_bytes(b"before")
    new.touch()
    write_whole(path, b"after")
    assert path.read_bytes() == b"after"
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(new.stat().st_mode)
    assert sorted(tmp_path.iterdir()) == [path, new]


def test_what_cannot_be_put_in_its_place_leaves_nothing_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "a.txt"
    (folder / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match=r"a\.txt"):
        write_whole(folder, b"after")
    assert list(tmp_path.iterdir()) == [folder]


def test_without_a_folder_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "none" / "a.txt", b"after")
    assert list(tmp_path.iterdir()) == []
