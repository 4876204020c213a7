"""The report in Chromium: alone, safe, readable in both themes, on a phone and on paper."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.report import svg
from berth.report.blocks import StackedBar
from tests.berth.report.report_documents import evaluation, measurement

HOSTILE = '"><script>window.hacked=1</script><img src=x onerror=window.hacked=1>{{7*7}}</style>&amp;'


@pytest.fixture
def page(run_berth: Callable[..., Any], documents: Callable[..., list[str]], tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    ran = run_berth(
        "report",
        *documents("assess", "size", "training", measurement=measurement(), evaluation=evaluation()),
        "-o",
        path,
    )
    assert ran.code == 0, ran.err
    return path


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_it_reads_well_everywhere(show: Any, looks: Any, page: Path, width: int, dark: bool) -> None:
    browser = show(page, width, dark=dark)
    assert looks(browser) == []
    for fold in browser.find_elements("tag name", "summary"):
        browser.execute_script("arguments[0].parentElement.open = true", fold)
    assert looks(browser) == []


def test_every_reference_leads_to_the_command(show: Any, page: Path) -> None:
    browser = show(page)
    broken = browser.execute_script(
        "return [...document.querySelectorAll('a[href^=\"#\"]')]"
        ".filter((a) => !document.querySelector(a.getAttribute('href'))).map((a) => a.outerHTML)"
    )
    assert broken == []
    browser.find_element("css selector", ".glance a.ref[href='#from-size']").click()
    assert browser.execute_script("return document.querySelector(':target code').textContent").startswith("berth size ")


def test_the_bar_of_memory_is_as_long_as_its_terms(show: Any, page: Path) -> None:
    browser = show(page)
    frame, parts = browser.execute_script(
        "const w = (e) => e.getBoundingClientRect().width, s = document.querySelector('svg.stack');"
        "return [w(s.querySelector('.frame')), [...s.querySelectorAll('rect:not(.frame)')].map(w)]"
    )
    used, there = re.search(
        r": ([\d.]+) GiB of L4, ([\d.]+) GiB",
        browser.find_element("css selector", "svg.stack").get_attribute("aria-label"),
    ).groups()  # type: ignore[union-attr]
    assert sum(parts) / frame == pytest.approx(float(used) / float(there), rel=0.02)


def test_on_paper_the_folded_tables_are_there_and_the_contents_are_not(show: Any, page: Path) -> None:
    browser = show(page, media="print")
    assert not browser.find_element("tag name", "nav").is_displayed()
    assert browser.execute_script(
        "return [...document.querySelectorAll('details td')].every((e) => e.getBoundingClientRect().height > 0)"
    )
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert pdf.startswith(b"%PDF-")


def test_it_works_by_keyboard(show: Any, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser = show(page)
    browser.find_element("tag name", "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.text == "To the report"
    fold = browser.find_element("tag name", "summary")
    fold.send_keys(Keys.ENTER)
    assert browser.execute_script("return arguments[0].parentElement.open", fold)


def test_hostile_names_stay_text(
    show: Any, looks: Any, run_berth: Callable[..., Any], documents: Callable[..., list[str]], tmp_path: Path
) -> None:
    ran = run_berth("size", "google/flan-t5-xl", "--latency", "5", "--requests-per-day", "20000", "--json")
    size = json.loads(ran.out)
    size["model"]["name"] = size["model"]["licence"] = HOSTILE
    size["notes"] = [HOSTILE]
    size["memory"]["device"]["terms"][0]["name"] = HOSTILE
    seen = measurement(verdicts=[HOSTILE], target=HOSTILE)
    seen["model"]["name"] = HOSTILE
    seen["machine"]["gpus"] = [{"name": f"L4 {HOSTILE}", "memory_bytes": 1, "compute_capability": 8.9}]
    path = tmp_path / "hostile.html"
    scores = evaluation(HOSTILE, base=HOSTILE, model=HOSTILE)
    ran = run_berth(
        "report", *documents(size=size, measurement=seen, evaluation=scores), "-o", path, "--title", HOSTILE
    )
    assert ran.code == 0, ran.err
    browser = show(path)
    assert browser.execute_script(
        "return [window.hacked ?? null, document.scripts.length, document.images.length]"
    ) == [None, 0, 0]
    assert browser.title == HOSTILE
    assert browser.find_element("tag name", "h1").text == HOSTILE
    assert looks(browser) == []


def test_the_policy_allows_nothing_but_the_page_s_own_style(page: Path) -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page.read_text(encoding="utf-8"))
    assert html.unescape(policy).startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=15), st.integers(0, 10**12) | st.none())
def test_no_part_of_a_bar_leaves_the_picture(sizes: list[int], capacity: int | None) -> None:
    total = sum(sizes)
    drawn = svg.stacked_bar(
        StackedBar("t", tuple((f"p{i}", size) for i, size in enumerate(sizes)), "size", total // 2, total * 2, capacity)
    )
    ends = [float(x) + float(w) for x, w in re.findall(r'x="([\d.]+)%" y="6" width="([\d.]+)%"', drawn)]
    assert len(ends) == len(sizes)
    assert max(ends) <= 100.1


@given(st.floats(1e-9, 1e12))
def test_ticks_are_round_few_and_reach_the_highest(highest: float) -> None:
    marks = svg.ticks(highest)
    assert marks[0] == 0
    assert 2 <= len(marks) <= 12
    assert marks[-1] >= highest * (1 - 1e-6)
