"""Times the review page in Chromium at 10,000 rows: first paint, ready, next row, scrolling. Needs Chromium on PATH.

Milliseconds, printed beside the bounds that the page is meant to keep; with `--check` a missed bound is exit code 1.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from berth.review.page import render  # noqa: E402
from berth.review.predictions import read_predictions  # noqa: E402

BOUNDS = {"first paint": 1000.0, "next row, median": 50.0}
_STEPS = """
const done = arguments[0], found = [];
const step = () => {
  const t = performance.now();
  document.dispatchEvent(new KeyboardEvent('keydown', { key: found.length % 3 === 2 ? 'c' : 'j', bubbles: true }));
  requestAnimationFrame(() => setTimeout(() => {
    found.push(performance.now() - t);
    if (found.length < 200) step(); else done(found);
  }, 0));
};
step();
"""
_SCROLL = """
const done = arguments[0], list = document.getElementById('list'), found = [];
const step = () => {
  const t = performance.now();
  list.scrollTop = found.length * 58 * 97;
  requestAnimationFrame(() => setTimeout(() => { found.push(performance.now() - t); if (found.length < 100) step(); else done(found); }, 0));
};
step();
"""  # noqa: E501


def predictions(path: Path, count: int, words: int) -> None:
    """`count` rows with inputs of `words` words and answers of about 40."""
    draw = random.Random(1)  # noqa: S311
    stock = [f"word{i}" for i in range(4000)]

    def text(n: int) -> str:
        return " ".join(draw.choices(stock, k=n))

    with path.open("w", encoding="utf-8") as file:
        for i in range(count):
            reference = text(40)
            row = {"id": f"row {i}", "input": text(words), "reference": reference, "base": text(40)}
            row["tuned"] = " ".join([*reference.split()[:25], text(15)])
            file.write(json.dumps(row) + "\n")


def measure(page: Path) -> dict[str, float]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
    ):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        browser.get(page.resolve().as_uri())
        while not browser.execute_script("return document.body.dataset.ready"):
            pass
        paint = browser.execute_script("return performance.getEntriesByName('first-contentful-paint')[0].startTime")
        ready = float(browser.execute_script("return document.body.dataset.ready"))
        steps, scrolls = (sorted(browser.execute_async_script(s)) for s in (_STEPS, _SCROLL))
    finally:
        browser.quit()
    return {
        "first paint": paint,
        "first row shown": ready,
        "next row, median": steps[len(steps) // 2],
        "next row, 95th percentile": steps[int(len(steps) * 0.95)],
        "scroll by 97 rows, median": scrolls[len(scrolls) // 2],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--words", type=int, default=320, help="words of an input")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a bound is missed")
    options: Any = parser.parse_args()
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        print("no Chromium with its driver on PATH (Debian: chromium and chromium-driver)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        source, page = Path(folder) / "p.jsonl", Path(folder) / "p.html"
        predictions(source, options.rows, options.words)
        page.write_text(render(read_predictions(source), title="bench"), encoding="utf-8")
        size = page.stat().st_size
        found = measure(page)
    print(f"{options.rows:,} rows, a page of {size / 2**20:.1f} MiB, {platform.machine()}, milliseconds")
    missed = False
    for name, value in found.items():
        bound = BOUNDS.get(name)
        missed |= bound is not None and value > bound
        print(f"{name:28}{value:9.1f}" + (f"   of {bound:g}" if bound else ""))
    return int(missed and options.check)


if __name__ == "__main__":
    sys.exit(main())
