"""The review page in Chromium: keys, blind, undo, filters, several reviewers; safe, alone, fit for a phone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from berth.review.judgements import Journal, Judgement, read_judgements
from berth.review.page import render
from berth.review.predictions import read_predictions
from berth.review.server import ReviewServer
from tests.berth.review.predictions_file import HOSTILE, rows, write


@pytest.fixture
def opened(show: Any, tmp_path: Path) -> Callable[..., Any]:
    """`opened(rows, width=390, title=…)`: the page of these rows from disk, ready, with its browser."""

    def made(given: list[dict[str, Any]] | None = None, *, title: str = "p.jsonl", **view: Any) -> Any:
        path = tmp_path / "review.html"
        found = read_predictions(write(tmp_path / "p.jsonl", given))
        path.write_text(render(found, title=title, reviewer="ann"), encoding="utf-8")
        browser = ready(show(path, **view))
        browser.execute_script("localStorage.clear()")
        browser.refresh()
        return ready(browser)

    return made


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ReviewServer]:
    found = read_predictions(write(tmp_path / "p.jsonl"))
    journal = Journal(tmp_path / "j.jsonl")
    journal.append([Judgement(row.key, "bob", "tuned", "wrong", "no") for row in found[:2]])
    page = render(found, title="p.jsonl", mode="server", reviewer="ann")
    server = ReviewServer(page, frozenset(row.key for row in found), journal)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
    journal.close()


def until(browser: Any, script: str) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20, 0.02).until(lambda b: b.execute_script(f"return {script}"))


def ready(browser: Any) -> Any:
    until(browser, "document.body.dataset.ready")
    return browser


def press(browser: Any, keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser, duration=0).send_keys(keys).perform()


def text(browser: Any, selector: str) -> str:
    return browser.execute_script("return document.querySelector(arguments[0]).textContent", selector)


def choose(browser: Any, which: str, value: str) -> None:
    browser.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('change'))",
        which, value,
    )  # fmt: skip


def kept(browser: Any) -> list[dict[str, Any]]:
    """The judgements that stand as this browser keeps them, the latest last."""
    stored = browser.execute_script(
        "return localStorage.getItem(Object.keys(localStorage).find((k) => /^berth-review:/.test(k)))"
    )
    found = [json.loads(line) for line in (stored or "").split("\n") if line]
    return sorted(found, key=lambda judgement: judgement["at"])


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_it_reads_well_everywhere(opened: Any, looks: Any, width: int, dark: bool) -> None:
    browser = opened(width=width, dark=dark)
    assert looks(browser) == []
    press(browser, "dx")
    assert looks(browser) == []


def test_keys_judge_and_go_on_and_the_browser_keeps_it(opened: Any) -> None:
    browser = opened()
    press(browser, "1hkkw")
    assert text(browser, "#count") == "2 of 12 judged by you"
    assert [j["label"] for j in kept(browser)] == ["hallucinated", "wrong"]
    browser.refresh()
    ready(browser)
    assert text(browser, "#count") == "2 of 12 judged by you"
    assert text(browser, "#which").startswith("3 of 12")


def test_the_same_key_again_and_undo_take_back(opened: Any) -> None:
    browser = opened()
    press(browser, "1k1")
    assert text(browser, "#count") == "0 of 12 judged by you"
    press(browser, "2")
    assert text(browser, "#count") == "1 of 12 judged by you"
    press(browser, "zzz")
    assert text(browser, "#count") == "0 of 12 judged by you"
    assert browser.execute_script("return document.getElementById('undo').disabled")


def test_hostile_answers_and_names_stay_text(opened: Any) -> None:
    browser = opened(title=HOSTILE)
    choose(browser, "order", "file")
    for mode in ("reference", "other", "input", "none"):
        choose(browser, "marks", mode)
        for _ in range(5):
            press(browser, "j")
        press(browser, "kk")
        assert text(browser, "#which") == "4 of 12, t3"
        assert text(browser, "#card-1 .text") == HOSTILE
        press(browser, "kkk")
    assert browser.execute_script("return [window.hacked ?? null, document.images.length]") == [None, 0]
    assert browser.find_element("tag name", "h1").text == HOSTILE


def test_the_policy_stops_what_is_no_script_of_the_page(opened: Any, tmp_path: Path) -> None:
    from html import unescape

    browser = opened()
    (policy,) = re.findall(r'Policy" content="([^"]+)"', (tmp_path / "review.html").read_text(encoding="utf-8"))
    assert "unsafe" not in policy
    assert "connect-src 'none'" in unescape(policy)
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; document.body.append(s)"
    )
    assert browser.execute_script("return window.hacked ?? null") is None
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))


def test_differences_are_marked_word_by_word(opened: Any) -> None:
    browser = opened([{"input": "a b c d", "reference": "a b c d", "base": "a x c d", "tuned": "a b y z d"}])
    marked = "return [0, 1].map((n) => [...document.querySelectorAll(`#card-${n} mark`)].map((m) => m.textContent))"
    assert browser.execute_script(marked) == [["x"], ["y z"]]
    choose(browser, "marks", "other")
    assert browser.execute_script(marked) == [["x c"], ["b y z"]]
    choose(browser, "marks", "none")
    assert browser.execute_script(marked) == [[], []]


@pytest.mark.parametrize("words", [3, 3000])
def test_marked_texts_are_the_texts_themselves(opened: Any, words: int) -> None:
    base = " ".join(f"w{i * 7 % 11}" for i in range(words)) + "  \n end"
    tuned = "  " + " ".join(f"w{i * 5 % 13}" for i in range(words))
    browser = opened([{"input": "x", "reference": base[::-1], "base": base, "tuned": tuned}])
    for mode in ("reference", "other", "input"):
        choose(browser, "marks", mode)
        assert text(browser, "#card-0 .text") == base
        assert text(browser, "#card-1 .text") == tuned


def test_blind_hides_which_is_which_and_keeps_what_was_meant(opened: Any) -> None:
    given = rows(40)
    browser = opened(given)
    choose(browser, "order", "file")
    press(browser, "x")
    swapped = 0
    for i in range(40):
        assert text(browser, "#name-0") == "A"
        assert text(browser, "#reasons") == text(browser, "#metrics") == ""
        first = text(browser, "#card-0 .text")
        swapped += first == given[i]["tuned"]
        press(browser, "a")
        meant = kept(browser)[-1]
        assert meant["answer"] == "preference"
        assert meant["blind"] is True
        assert given[i][meant["label"]] == first
    assert 8 <= swapped <= 32
    shown = browser.execute_script("return [...document.querySelectorAll('.row p')].map((e) => e.textContent)")
    assert all(line.startswith("Ticket ") for line in shown)


def test_filters_search_and_order(opened: Any) -> None:
    browser = opened()
    assert text(browser, "#which") in {"1 of 12, t3", "1 of 12, t7"}
    choose(browser, "order", "file")
    press(browser, "11")
    choose(browser, "filter", "mine")
    assert text(browser, "#which").startswith("1 of 2")
    choose(browser, "filter", "open")
    assert text(browser, "#which").startswith("1 of 10")
    choose(browser, "filter", "label:unsafe")
    assert text(browser, "#which") == "No row is like that."
    press(browser, "1azsj")
    choose(browser, "filter", "all")
    press(browser, "/")
    press(browser, "room 9")
    until(browser, "/^1 of 1,/.test(document.getElementById('which').textContent)")
    press(browser, "\ue0072")
    assert kept(browser)[-1]["order"] == "picked"


def test_a_comment_is_kept_with_its_answer(opened: Any) -> None:
    browser = opened()
    press(browser, "mmade up\ue007")
    assert kept(browser)[-1]["comment"] == "made up"
    press(browser, "3")
    assert (kept(browser)[-1]["label"], kept(browser)[-1]["comment"]) == ("hallucinated", "made up")


def test_without_a_name_nothing_is_judged(opened: Any) -> None:
    browser = opened()
    browser.execute_script("document.getElementById('reviewer').value = ''")
    press(browser, "1")
    assert "Say who you are" in text(browser, "#state")
    assert kept(browser) == []


def test_only_the_rows_in_sight_are_in_the_document(opened: Any) -> None:
    browser = opened(rows(2000))
    inside = "document.querySelectorAll('.row').length"
    assert browser.execute_script(f"return {inside}") < 40
    browser.execute_script("document.getElementById('list').scrollTop = 58 * 1500")
    until(browser, "[...document.querySelectorAll('.row')].some((e) => e.dataset.n === '1500')")
    assert browser.execute_script(f"return {inside}") < 40
    browser.find_element("id", "list").send_keys("\ue010")
    assert text(browser, "#which").startswith("2000 of 2,000")


def test_the_server_has_every_judgement_before_the_page_says_so(show: Any, looks: Any, served: ReviewServer) -> None:
    browser = ready(show(served.url))
    press(browser, "123")
    until(browser, "document.body.dataset.waiting === '0'")
    mine = [j for j in read_judgements(served.journal.path).judgements if j.reviewer == "ann"]
    assert [j.label for j in mine] == ["correct", "wrong", "hallucinated"]
    assert {j.order for j in mine} == {"suspicious"}
    assert looks(browser) == []


def test_others_are_seen_after_one_s_own_judgement_only(show: Any, served: ReviewServer) -> None:
    browser = ready(show(served.url))
    choose(browser, "order", "file")
    assert text(browser, "#others") == ""
    press(browser, "1k")
    assert text(browser, "#others") == "bob: fine-tuned wrong (no)"
    choose(browser, "filter", "differ")
    assert text(browser, "#which").startswith("1 of 1")


def test_a_server_that_is_away_is_told_and_nothing_is_lost(show: Any, served: ReviewServer) -> None:
    browser = ready(show(served.url))
    key, served.rows = served.rows, frozenset()
    press(browser, "1")
    until(browser, "/not saved yet/.test(document.getElementById('state').textContent)")
    served.rows = key
    until(browser, "document.body.dataset.waiting === '0'")
    assert [j.label for j in read_judgements(served.journal.path).judgements if j.reviewer == "ann"] == ["correct"]
    assert text(browser, "#state") == ""
    browser.get_log("browser")


def test_what_the_page_exports_is_read_again(opened: Any, tmp_path: Path) -> None:
    browser = opened()
    press(browser, "12")
    browser.find_element("id", "export").click()
    target = browser.downloads / "p.reviews.jsonl"
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20, 0.05).until(lambda _: target.exists() and target.stat().st_size)
    read = read_judgements(target)
    target.unlink()
    assert read.damaged == 0
    assert sorted(j.label or "" for j in read.judgements) == ["correct", "wrong"]


def test_feedback_stands_beside_the_answer_and_hides_with_the_sides(opened: Any) -> None:
    given = rows(3)
    given[1]["feedback"] = [
        {"rating": 2, "comment": f"No: {HOSTILE}", "time": "2026-11-20T10:00:00Z"},
        {"corrected_answer": "A wished answer.", "rating": True, "unknown": 1},
        "damaged",
    ]
    browser = opened(given)
    shown = text(browser, "#feedback")  # a low rating is read first
    assert text(browser, "#which").endswith("t1")
    assert "2 of 5" in shown
    assert HOSTILE in shown
    assert "A wished answer." in shown
    assert browser.execute_script("return window.hacked") is None
    assert "rated 2 of 5 by its reader" in text(browser, "#reasons")
    press(browser, "x")
    assert not browser.find_element("id", "feedback-part").is_displayed()
    press(browser, "x")
    press(browser, "j")
    assert not browser.find_element("id", "feedback-part").is_displayed()
