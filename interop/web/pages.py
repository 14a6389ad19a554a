"""The pages of Sidekiq's Web UI: what they show, and their buttons.

The only module that knows their HTML, which is one of Sidekiq 7 and another of
8.  Tables are found and read by their headings, as a person reads them: those
are the same in both, and so are the ids of charts.  ``VERSIONS`` has the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, ClassVar

import attrs
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from interop.web.browser import Browser


@attrs.frozen
class Version:
    """What differs between the Web UIs of two major versions.

    Attributes:
      routes: Ruby, for the patterns of all addresses that answer to GET.
      left_out: Patterns of those that no test asks for.
      filters: The addresses that answer what is written into a page's filter.
      periods: Which the pages of metrics offer.
      ascii_only: Whether the page of a job class fails where the class's name has
        other letters than ASCII.  8.1.7 does, for Ruby's own classes, too.
      for_all: CSS of the button that does WHAT to all jobs on a PAGE.
    """

    routes: str
    left_out: frozenset[str]
    filters: tuple[str, ...]
    periods: tuple[str, ...]
    ascii_only: bool
    for_all: str


VERSIONS = {
    "7": Version(
        routes="Sidekiq::WebApplication.instance_variable_get(:@routes)['GET'].map(&:pattern)",
        left_out=frozenset(),
        filters=("/filter/retries", "/filter/scheduled", "/filter/dead", "/filter/metrics"),
        periods=("1h", "2h", "4h", "8h"),
        ascii_only=False,
        for_all="form[action='/PAGE/all/WHAT'] [type=submit]",
    ),
    "8": Version(
        routes="Sidekiq::Web::Application.route_cache[:get].map(&:pattern)",
        # Profiles are Ruby's alone, and the first of these sends one to a public server.
        left_out=frozenset({"/profiles/:key", "/profiles/:key/data"}),
        filters=("/retries", "/scheduled", "/morgue", "/metrics"),
        periods=("1h", "2h", "4h", "8h", "24h", "48h", "72h"),
        ascii_only=True,
        for_all="form [type=submit][formaction='/PAGE/all/WHAT']",
    ),
}


@attrs.frozen
class Row:
    """One row of a table.

    Attributes:
      cells: Heading -> text.
      times: The moments shown, in UTC: ``2026-01-31T12:00:00Z``.
    """

    element: WebElement
    cells: dict[str, str]
    times: list[str]

    def __getitem__(self, heading: str) -> str:
        return self.cells[heading]


_ROWS = """
const text = element => element.innerText.trim().replace(/\\s+/g, ' ')
for (const table of document.querySelectorAll('#page table')) {
  const headings = [...table.querySelectorAll('th')].map(text)
  if (arguments[0].every(heading => headings.includes(heading)))
    // A cell across all columns says that there is nothing.
    return [...table.querySelectorAll('tr')].filter(row => row.querySelector('td:not([colspan])')).map(row => ({
      element: row,
      cells: Object.fromEntries([...row.querySelectorAll('td')].map((cell, i) => [headings[i], text(cell)])),
      times: [...row.querySelectorAll('time')].map(time => time.dateTime),
    }))
}
return null
"""

_FACTS = """
return Object.fromEntries([...document.querySelectorAll('#page tr')].filter(row => row.querySelector('td'))
  .map(row => [row.querySelector('th').innerText.trim(), row.querySelector('td').innerText.trim()]))
"""


class Page:
    """A page: opened first, then read."""

    path: ClassVar[tuple[str, ...]] = ()

    def __init__(self, browser: Browser, version: Version) -> None:
        self.browser = browser
        self.version = version

    def open(self) -> None:
        self.browser.open(*self.path)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Open the page again and again until a condition holds on it; its value."""
        return self.browser.until(condition, what, *self.path)

    def summary(self) -> dict[str, int]:
        """The numbers at the head of each page."""
        counts = self.browser.all("#page .count[data-nwp]")
        return {count.find_element(By.XPATH, "../*[@class='desc']").text: number(count.text) for count in counts}

    def rows(self, *headings: str) -> list[Row]:
        """The rows of the table that has these headings, among others."""
        found = self.browser.driver.execute_script(_ROWS, list(headings))
        assert found is not None, f"no table {headings} at {self.browser.path}:\n{self.browser.text('#page')}"
        return [Row(**row) for row in found]

    def chart(self, name: str) -> dict[str, Any]:
        """What a chart is drawn from."""
        data: dict[str, Any] = json.loads(self.browser.one(f"#{name}").get_attribute("textContent") or "")
        return data

    def filter(self, text: str) -> None:
        """Write a text into the filter and press Enter."""
        self.browser.enter("substr", text)


class Dashboard(Page):
    def history(self) -> dict[str, list[int]]:
        """Days' counts of ``processed`` and ``failed`` jobs."""
        chart = self.chart("history-chart")
        return {name: [count for _, count in chart[name]] for name in ("processed", "failed")}

    def redis_version(self) -> str:
        return self.browser.text("#redis_version")


class Busy(Page):
    path = ("busy",)

    def totals(self) -> dict[str, str]:
        """The numbers above the tables."""
        values = self.browser.all("#page h3:has(+ p)")
        return {value.find_element(By.XPATH, "following-sibling::p").text: value.text for value in values}

    def processes(self) -> list[Row]:
        return self.rows("Name", "Threads", "Busy")

    def process(self, identity: str) -> Row:
        """The row of one process; its form knows it by its identity."""
        field = f"[name=identity][value='{identity}']"
        (row,) = [row for row in self.processes() if row.element.find_elements(By.CSS_SELECTOR, field)]
        return row

    def is_quiet(self, process: Row) -> bool:
        """Whether it is marked so, in which case it has no button for it."""
        marks = [mark.text for mark in process.element.find_elements(By.CSS_SELECTOR, ".label-danger")]
        assert marks in ([], ["quiet"])
        assert bool(marks) != bool(process.element.find_elements(By.CSS_SELECTOR, "[type=submit][name=quiet]"))
        return bool(marks)

    def jobs(self) -> list[Row]:
        """What the threads work on."""
        return self.rows("Process", "TID", "JID")

    def press(self, button: str, process: Row) -> None:
        self.browser.press(self.browser.button(button, process.element))

    def press_for_all(self, button: str) -> None:
        self.browser.press(self.browser.one(f".warning-messages [name={button}]"))


class Queues(Page):
    path = ("queues",)

    def queues(self) -> dict[str, Row]:
        """Name -> row."""
        return {row["Queue"]: row for row in self.rows("Queue", "Size", "Latency")}

    def delete(self, name: str) -> None:
        self.browser.press(self.browser.button("delete", self.queues()[name].element))


class Queue(Page):
    def open(self, name: str = "") -> None:
        self.browser.open("queues", name)

    def size(self) -> int:
        return number(self.browser.text("h1 .badge"))

    def jobs(self) -> list[Row]:
        return self.rows("Job", "Arguments", "Context")

    def jids(self) -> list[str]:
        return [row.element.get_attribute("title") or "" for row in self.jobs()]

    def positions(self) -> list[str]:
        """Each job's number; their heading also shows the direction."""
        cells = [cell for row in self.jobs() for cell in row.cells.items()]
        return [text for heading, text in cells if heading.startswith("#")]

    def unfolded(self) -> list[str]:
        """The arguments that are too long for the table, in full."""
        return [element.get_attribute("textContent") or "" for element in self.browser.all("#page table .toggle")]

    def delete(self, jid: str) -> None:
        (row,) = [row for row in self.jobs() if row.element.get_attribute("title") == jid]
        self.browser.press(self.browser.button("delete", row.element))


class JobList(Page):
    """The jobs of a set, and the page of each of them."""

    def jobs(self) -> list[Row]:
        if self.browser.all("#page .alert-success"):
            # It says that there is nothing, and has no table.
            assert not self.browser.all("#page table")
            return []
        return self.rows("Queue", "Job", "Arguments")

    def open_job(self, key: str) -> None:
        """The page of one job, by ``SCORE-JID``."""
        self.browser.open(*self.path, key)
        assert self.browser.path.startswith(f"/{self.path[0]}/"), "the page of the job, not that of all"

    def facts(self) -> dict[str, str]:
        """On the page of a job: name -> value."""
        facts: dict[str, str] = self.browser.driver.execute_script(_FACTS)
        return facts

    def times(self) -> list[str]:
        """On the page of a job: the moments shown, in UTC."""
        return [element.get_attribute("datetime") or "" for element in self.browser.all("#page time")]

    def follow_tag(self, tag: str) -> None:
        self.browser.press(self.browser.one(f"#page .jobtag a[href$='substr={tag}']"))

    def tick(self, jid: str) -> None:
        """Tick the box of a job in the list."""
        boxes = self.browser.all("#page input[name='key[]']")
        (box,) = [box for box in boxes if (box.get_attribute("value") or "").endswith(f"-{jid}")]
        self.browser.click(box)

    def press(self, button: str) -> None:
        """For the jobs that are ticked, or for the one whose page it is."""
        self.browser.press(self.browser.button(button))
        assert self.browser.path.startswith(f"/{self.path[0]}")

    def press_for_all(self, what: str) -> None:
        css = self.version.for_all.replace("PAGE", self.path[0]).replace("WHAT", what)
        self.browser.press(self.browser.one(css))


class Retries(JobList):
    path = ("retries",)


class Scheduled(JobList):
    path = ("scheduled",)


class Dead(JobList):
    path = ("morgue",)


class Metrics(Page):
    """The list of all job classes, and the page of each of them."""

    path = ("metrics",)

    def open(self, period: str = "") -> None:
        self.browser.open(*self.path, **({"period": period} if period else {}))

    def periods(self) -> list[str]:
        return [option.text for option in self.browser.all("#period-selector option")]

    def classes(self) -> dict[str, Row]:
        """Name -> row."""
        return {row["Name"]: row for row in self.rows("Name", "Success", "Failure")}

    def charted(self) -> set[str]:
        """The classes that the chart shows."""
        return set(self.chart("job-metrics-overview-chart")["series"])

    def follow(self, name: str) -> None:
        self.browser.press(self.classes()[name].element.find_element(By.LINK_TEXT, name))

    def open_class(self, name: str) -> None:
        self.browser.open(*self.path, name)

    def title(self) -> str:
        return self.browser.text("h1")

    def histogram(self) -> list[int]:
        """On the page of a class: how many executions took how long, the shortest first."""
        series: list[int] = self.chart("hist-totals-chart")["series"]
        return series

    def minutes(self) -> dict[str, list[int]]:
        """On the page of a class: minute -> histogram."""
        minutes: dict[str, list[int]] = self.chart("hist-bubble-chart")["hist"]
        return minutes


class Pages:
    """All of them."""

    def __init__(self, browser: Browser, version: Version) -> None:
        self.browser = browser
        self.version = version
        self.dashboard = Dashboard(browser, version)
        self.busy = Busy(browser, version)
        self.queues = Queues(browser, version)
        self.queue = Queue(browser, version)
        self.retries = Retries(browser, version)
        self.scheduled = Scheduled(browser, version)
        self.dead = Dead(browser, version)
        self.metrics = Metrics(browser, version)

    def shot(self, name: str) -> None:
        """Keep what the page looks like."""
        self.browser.shot(name)

    def of_set(self, name: str) -> JobList:
        """The page of ``retry``, ``schedule`` or ``dead``."""
        return {"retry": self.retries, "schedule": self.scheduled, "dead": self.dead}[name]


def number(text: str) -> int:
    """A number as a page shows it."""
    return int(re.sub(r"[,\s]", "", text))
