"""The architecture page: its map is that of the code, its picture that of the script, its boxes name what is there."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from scripts import architecture_page as page
from scripts.architecture_picture import BOXES, CALLS, FILES, LANES, place

TEXT = page.PAGE.read_text(encoding="utf-8")


def test_page_and_picture_are_what_the_code_says() -> None:
    assert page.render(TEXT) == TEXT, "docs/architecture.md is not up to date; run `make docs`"
    assert page.PICTURE.read_text(encoding="utf-8") == page.picture(), "run `make docs`"


def test_every_module_says_what_it_holds() -> None:
    silent = [path for path in page.modules() if not page.said(path)]
    assert [path.relative_to(page.ROOT).as_posix() for path in silent] == []


def test_what_the_page_and_the_boxes_name_is_there() -> None:
    head = TEXT.partition(page.START)[0]
    named = re.findall(r"`((?:sizing|infra|berth|model_runtime|stacks|tests)/[\w./-]*)`", head)
    named += [part.strip() for *_, where in BOXES.values() for part in where.split(",") if "/" in part]
    assert len(named) > 30
    assert [name for name in named if not (page.ROOT / name).exists()] == []


def test_calls_go_downwards_and_only_files_come_back() -> None:
    rooms = [room for room, _ in LANES]
    allowed = {("sizing", "sizing"), ("sizing", "infra"), ("infra", "infra"), ("model_runtime", "model_runtime")}
    for start, end in CALLS:
        assert (rooms[BOXES[start][1]], rooms[BOXES[end][1]]) in allowed
    assert {name for pair in (*CALLS, *FILES) for name in pair} | {"commands"} == set(BOXES)


def test_the_picture_is_one_and_its_boxes_do_not_overlap() -> None:
    ElementTree.fromstring(page.picture())  # noqa: S314 (Berth's own)
    places = [(place(name).x, place(name).y) for name in BOXES]
    assert len(set(places)) == len(places)
