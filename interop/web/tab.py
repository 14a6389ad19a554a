"""The tab of workflows: what its pages show, and their buttons.  It is the same on all versions of Sidekiq."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from interop.web.browser import WIDTH
from interop.web.pages import Page, Row

#: A narrow window, as of a telephone.
NARROW = 390


class Workflows(Page):
    """The list of runs, and the page of each of them."""

    path = ("workflows",)

    def follow_tab(self) -> None:
        self.browser.open()
        self.browser.press(self.browser.one("a[href$='/workflows']"))

    def runs(self) -> list[Row]:
        return self.rows("State", "Run", "Progress")

    def choose(self, state: str = "", tag: str = "") -> None:
        """List the runs of a state and a tag."""
        self.browser.click(self.browser.one(f".flow-filter option[value='{state}']"))
        self.browser.enter("tag", tag)

    def follow_run(self, run_id: str) -> None:
        self.browser.press(self.browser.one(f"#page td a[href$='/workflows/{run_id}']"))

    def has_next(self) -> bool:
        return bool(self.browser.all("#page a[rel=next]"))

    def follow_next(self) -> None:
        self.browser.press(self.browser.one("#page a[rel=next]"))

    # -- the page of a run ---------------------------------------------------------

    def open_run(self, run_id: str) -> None:
        self.browser.open(*self.path, run_id)

    def until_run(self, run_id: str, condition: Callable[[], Any], what: str) -> None:
        """Open the page of a run again and again until a condition holds on it."""
        self.browser.until(condition, what, *self.path, run_id)

    def state(self) -> str:
        return self.browser.text("#page h1 .label")

    def facts(self) -> dict[str, str]:
        """Name -> value of what is above the steps."""
        names, values = (self.browser.all(f"#page dl {tag}") for tag in ("dt", "dd"))
        return {name.text: value.text for name, value in zip(names, values)}

    def steps(self) -> list[Row]:
        return self.rows("#", "Step", "Language")

    def step(self, number: int) -> Row:
        return next(row for row in self.steps() if row["#"] == str(number))

    def dead_steps(self) -> list[Row]:
        """The table of dead steps that have no line in that of the steps."""
        return self.rows("#", "Step", "Error")

    def buttons(self) -> list[str]:
        return [button.get_attribute("name") or "" for button in self.browser.all(".flow-buttons [type=submit]")]

    def press(self, button: str, reason: str = "") -> None:
        if reason:
            self.browser.one(".flow-buttons [name=reason]").send_keys(reason)
        self.browser.press(self.browser.button(button))

    # -- what it looks like ----------------------------------------------------------

    def is_styled(self) -> bool:
        """Whether the style of the tab counts: the browser refuses it without the nonce of the page."""
        color = "return getComputedStyle(document.querySelector('#page progress')).accentColor"
        return bool(self.browser.driver.execute_script(color) != "auto")

    def shots(self, name: str) -> None:
        """Keep what the page looks like: wide and narrow, light and dark."""
        for width in (WIDTH, NARROW):
            for scheme in ("light", "dark"):
                self.browser.shot(f"{name}-{width}-{scheme}", width=width, dark=scheme == "dark", still=True)
