"""A headless Chromium.  What is on the pages that it opens: ``pages.py``."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from selenium.common.exceptions import NoAlertPresentException, StaleElementReferenceException, WebDriverException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.running import eventually

INSTALL = "On Debian: apt-get install chromium chromium-driver"

#: Longest wait for a page, in seconds.
DEADLINE = 60.0

#: The window.
WIDTH, HEIGHT = 1280, 1000

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # it refuses to run as root with one
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-device-scale-factor=1",
    "--lang=en",
    f"--window-size={WIDTH},{HEIGHT}",
)


def _find(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.fail(f"There is no {names[0]}, and these tests are nothing without it. {INSTALL}", pytrace=False)
    return found


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Chrome]:
    """A browser with a new profile, and nothing of it left behind.

    Parameters:
      folder: Empty; for the profile and the driver's log.
    """
    options = ChromeOptions()
    options.binary_location = _find("chromium", "chromium-browser", "google-chrome")
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = ChromeService(
        _find("chromedriver"), log_output=str(folder / "driver.log"), popen_kw={"start_new_session": True}
    )
    try:
        driver = Chrome(options, service)
        driver.set_page_load_timeout(DEADLINE)
        yield driver
    finally:
        process = getattr(service, "process", None)
        with contextlib.suppress(Exception):
            driver.quit()
        if process is not None:
            # The driver's own session: it, and a browser that did not end.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


class Browser:
    """Opens pages, finds what is on them, and presses buttons.

    Parameters:
      root: The address of the Web UI.
      shots: Folder of screenshots.
    """

    def __init__(self, driver: Chrome, root: str, shots: Path) -> None:
        self.driver = driver
        self.root = root
        self.shots = shots

    def open(self, *path: str, **query: str) -> None:
        """Open a page; its path is quoted piece by piece.  It must be there, and whole."""
        address = self.root + "/" + "/".join(quote(part, safe="") for part in path)
        self.driver.get(f"{address}?{urlencode(query)}" if query else address)
        self.check()

    def check(self) -> None:
        """Fail unless this page was served well."""
        status = self.driver.execute_script("return performance.getEntriesByType('navigation')[0].responseStatus")
        assert status == 200, f"{status} for {self.driver.current_url}\n{self.text('body')}"
        assert "Internal Server Error" not in self.driver.page_source
        # In the foot of each page.
        assert self.all("#locale-form"), f"no whole page at {self.driver.current_url}"

    @property
    def path(self) -> str:
        """Where the browser is."""
        return str(self.driver.current_url).removeprefix(self.root)

    def shot(self, name: str, *, width: int = WIDTH, dark: bool = False, still: bool = False) -> None:
        """Keep what the page looks like, down to its end, once it stands still (charts are drawn little by little).

        Parameters:
          still: True if nothing on it moves.
        """
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self._resize(width, HEIGHT)
        try:
            self._resize(width, max(HEIGHT, self.driver.execute_script("return document.documentElement.scrollHeight")))
            before, deadline = b"", time.monotonic() + 10
            while (now := self.driver.get_screenshot_as_png()) != before and time.monotonic() < deadline:
                if still:
                    break
                before = now
                time.sleep(0.3)
            (self.shots / f"{name}.png").write_bytes(now)
        finally:
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
            self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    def _resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    # -- reading ----------------------------------------------------------------

    def all(self, css: str) -> list[WebElement]:
        found: list[WebElement] = self.driver.find_elements(By.CSS_SELECTOR, css)
        return found

    def one(self, css: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def text(self, css: str) -> str:
        return str(self.one(css).text)

    def until(self, condition: Callable[[], Any], what: str, *path: str) -> Any:
        """Open a page again and again until a condition holds on it; its value."""
        deadline = time.monotonic() + DEADLINE
        while True:
            self.open(*path)
            value = condition()
            if value:
                return value
            assert time.monotonic() < deadline, f"never {what} at {self.path}:\n{self.text('#page')}"
            time.sleep(0.2)

    # -- doing ------------------------------------------------------------------

    def press(self, button: WebElement) -> None:
        """Press a button that leads to another page, say yes where it asks, and wait for that page."""
        self._show(button)
        self._leave(button.click)

    def enter(self, field: str, text: str) -> None:
        """Write into a form's field, press Enter, and wait for the page that follows."""
        box = self.one(f"#page input[name={field}]")
        box.clear()
        self._leave(lambda: box.send_keys(text + Keys.ENTER))

    def _leave(self, act: Callable[[], None]) -> None:
        self.driver.execute_script("document.documentElement.dataset.old = 'yes'")
        act()
        with contextlib.suppress(NoAlertPresentException):
            self.driver.switch_to.alert.accept()

        def arrived() -> bool:
            try:
                return bool(
                    self.driver.execute_script(
                        "return document.readyState == 'complete' && !document.documentElement.dataset.old"
                    )
                )
            except (StaleElementReferenceException, WebDriverException):
                return False

        eventually(arrived, DEADLINE, "the page after a press of a button")
        self.check()

    def button(self, name: str, within: WebElement | None = None) -> WebElement:
        """A form's button by its name, which is not translated."""
        where: Any = within if within is not None else self.driver
        buttons: list[WebElement] = where.find_elements(By.CSS_SELECTOR, f"form [type=submit][name={name}]")
        assert buttons, f"no button {name} at {self.path}:\n{self.text('#page')}"
        return buttons[0]

    def click(self, element: WebElement) -> None:
        """Click on what leads to no other page."""
        self._show(element)
        element.click()

    def _show(self, element: WebElement) -> None:
        # In the middle: the foot of the window hides what is behind it.
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
