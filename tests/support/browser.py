"""A browser for tests: the machine's own Chromium, driven by Playwright."""

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATH = next(filter(None, map(shutil.which, NAMES)), None)
MILLISECONDS = 60_000  # for a step; a shared machine may be slow

needed = pytest.mark.skipif(PATH is None, reason="no Chromium: none of " + ", ".join(NAMES))


@dataclass
class Shown:
    """A page in a tab, and what was heard from it."""

    page: Page
    requests: list[str] = field(default_factory=list)  # addresses
    errors: list[str] = field(default_factory=list)  # of the console and uncaught, with warnings


@contextmanager
def chromium():
    """A browser, closed at the end."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PATH, timeout=MILLISECONDS)
        yield browser
        browser.close()


def open_page(browser: Browser, address: str, width: int, height: int = 900) -> Shown:
    """A new tab with the page at an address."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
    page.set_default_timeout(MILLISECONDS)
    shown = Shown(page)
    page.on("request", lambda request: shown.requests.append(request.url))
    page.on("pageerror", lambda error: shown.errors.append(str(error)))
    page.on("console", lambda message: _hear(shown, message))
    page.goto(address)
    return shown


def _hear(shown: Shown, message) -> None:
    if message.type in ("error", "warning"):
        shown.errors.append(f"{message.type}: {message.text} ({message.location['url']})")
