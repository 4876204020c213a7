"""Chromium for the tests of the pages; they skip where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium, driven by Selenium."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("no Chromium with its driver on PATH (Debian: chromium and chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    profile, downloads = tmp_path_factory.mktemp("chromium"), tmp_path_factory.mktemp("downloads")
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}", "--window-size=1280,900",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    started = webdriver.Chrome(options=options, service=Service(driver))
    started.downloads = downloads
    yield started
    started.quit()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Any]:
    """The browser with a blank page, a desktop's width and the light theme; what the console says fails the test."""
    chromium.get("about:blank")
    view(chromium, 1280)
    chromium.get_log("browser")
    yield chromium
    complaints = [entry["message"] for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"]
    chromium.get("about:blank")
    assert complaints == []


def view(browser: Any, width: int, *, dark: bool = False, media: str = "") -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [theme]})


@pytest.fixture
def show(browser: Any) -> Any:
    """`show(path, width=390, dark=True)`: open a file in the browser and give the browser."""

    def opened(path: Path | str, width: int = 1280, *, dark: bool = False, media: str = "") -> Any:
        view(browser, width, dark=dark, media=media)
        browser.get(path.resolve().as_uri() if isinstance(path, Path) else path)
        return browser

    return opened


@pytest.fixture
def looks() -> Any:
    """What is wrong with an open page to eyes and screen readers, as `looks.js` finds it."""
    script = Path(__file__).with_name("looks.js").read_text(encoding="utf-8")
    return lambda browser: browser.execute_script(script)
