"""Every page of Sidekiq's Web UI shows what Python has done, as it is."""

from __future__ import annotations

import ast
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from browser import Browser, number
from scene import ODD, THREADS, Scene
from scene_actors import NO_CONSTANT, RETRY_IN

from interop.tests.processes import ruby

#: What Debian's package ruby-sidekiq leaves out: asking "are you sure?", and the live refresh.
NOT_IN_DEBIAN = {"/javascripts/application.js", "/javascripts/dashboard.js"}

#: ODD as Ruby inspects it.
ODD_IN_RUBY = (
    '"Grüße, мир ☃ 😀", "<b>\\"bold\\"</b> & \'co\'", nil, true, 1180591620717411303424, 1.5, {"ключ"=>["é", {}]}'
)


def moment(seconds: float) -> str:
    """As the pages write one."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def key(scene: Scene, name: str, jid: str) -> str:
    """A job of a set as the pages' addresses name it."""
    found = scene.find(name, jid)
    assert found is not None, f"{jid} is not in {name}"
    return f"{found[1]!r}-{jid}"


def of_run(scene: Scene, name: str, run_id: str) -> dict[str, Any]:
    """The job of a run in a set, which is there."""
    job = scene.of_run(name, run_id)
    assert job is not None
    return job


@pytest.fixture
def scene(filled: Scene, browser: Browser) -> Iterator[Scene]:
    """The filled scene, which stands still: no test of this module changes it."""
    before = filled.numbers()
    yield filled
    for worker in filled.workers:
        worker.check()
    assert filled.numbers() == before
    assert set(filled.busy()) == set(filled.held)


def addresses(scene: Scene) -> list[str]:
    """Each page that a GET can ask for, with something on it."""
    jobs = {
        "/retries/": key(scene, "retry", scene.retrying),
        "/scheduled/": key(scene, "schedule", scene.scheduled),
        "/morgue/": key(scene, "dead", scene.dead),
    }
    names = ["python", "waiting", "ruby"]
    return [
        "/",
        *(f"/?days={days}" for days in (7, 90, 180)),
        "/busy",
        "/busy?count=1&page=2",
        "/queues",
        *(f"/queues/{name}{query}" for name in names for query in ("", "?direction=asc", "?count=1&page=2")),
        "/retries",
        "/retries?count=1&page=2",
        "/scheduled",
        "/scheduled?count=1&page=2",
        "/morgue",
        "/morgue?count=1&page=2",
        *(f"{path}{job}" for path, job in jobs.items()),
        *(f"/metrics?period={period}" for period in ("", "1h", "2h", "4h", "8h")),
        *(f"/metrics/{quote(name, safe='')}?period=8h" for name in scene.by_name()),
        "/stats",
        "/stats/queues",
        "/dashboard/stats",
        "/filter/metrics",
        *(f"/filter/{name}?substr={quote('Docs')}" for name in ("retries", "scheduled", "dead")),
    ]


def test_each_address_answers(web: str, scene: Scene) -> None:
    """Those of every route that this version of Sidekiq has."""
    routes = json.loads(
        ruby(
            scene.url,
            "-rsidekiq/web",
            "-rjson",
            "-e",
            "puts JSON.generate(Sidekiq::WebApplication.instance_variable_get(:@routes)['GET'].map(&:pattern))",
        )
    )
    asked = addresses(scene)
    for route in routes:
        pattern = re.sub(r":\w+", "[^/]+", route)
        assert any(re.fullmatch(pattern, address.partition("?")[0]) for address in asked), f"nobody asks for {route}"
    for address in asked:
        for language in ("en", "ar", "zh-CN"):
            request = urllib.request.Request(web + address, headers={"Accept-Language": language})
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    body = answer.read().decode()
            except urllib.error.HTTPError as e:
                pytest.fail(f"{e.code} for {address} in {language}: {e.read().decode()[:2000]}")
            assert answer.status == 200
            assert "Internal Server Error" not in body
            assert body.rstrip().endswith(("</html>", "}")), f"{address} is not whole"
    head = urllib.request.Request(web + "/", method="HEAD")
    with urllib.request.urlopen(head, timeout=60) as answer:
        assert answer.status == 200


def test_numbers_for_programs(web: str, scene: Scene) -> None:
    with urllib.request.urlopen(web + "/stats", timeout=60) as answer:
        stats = json.load(answer)["sidekiq"]
    assert {name.lower(): count for name, count in scene.numbers().items()}.items() <= stats.items()
    assert stats["processes"] == 2
    with urllib.request.urlopen(web + "/stats/queues", timeout=60) as answer:
        assert json.load(answer) == {"python": 0, "waiting": 4, "ruby": 1}


def test_dashboard(scene: Scene, browser: Browser) -> None:
    browser.open()
    browser.shot("dashboard")
    numbers = scene.numbers()
    assert browser.summary() == numbers
    assert numbers["Processed"] > 15
    assert numbers["Failed"] == 4
    history = json.loads(browser.one("#history-chart").get_attribute("textContent") or "")
    # A test that runs over midnight in UTC has two days' worth.
    assert sum(count for _, count in history["processed"]) == numbers["Processed"]
    assert sum(count for _, count in history["failed"]) == numbers["Failed"]
    assert len(history["processed"]) == 30
    assert browser.text("#redis_version") == scene.client.info("server")["redis_version"]


def test_busy(scene: Scene, browser: Browser) -> None:
    browser.open("busy")
    browser.shot("busy")
    assert browser.summary() == scene.numbers()
    processes = scene.processes()
    stats = [stat.text.split("\n") for stat in browser.all(".stats-container .stat")]
    assert [value for value, _ in stats[:4]] == ["2", str(2 * THREADS), "2", f"{round(2 / (2 * THREADS) * 100)}%"]
    rss = sum(int(record["rss"]) for record in processes.values())
    assert rss > 10_000

    rows = browser.table(".processes")
    assert len(rows) == 2
    for record in processes.values():
        info = record["info"]
        (row,) = [row for row in rows if row[0].startswith(f"{info['hostname']}:{info['pid']} ")]
        assert "docs python beta" in row[0]
        assert "Queues: python" in row[0]
        assert "waiting" not in row[0]
        assert f"Version: {info['version']}" in row[0]
        assert "embedded" not in row[0]
        assert "quiet" not in row[0]
        assert [number(row[3]), number(row[4])] == [THREADS, int(record["busy"])]
    assert len(browser.times(".processes")) == 2
    for shown in browser.times(".processes"):
        assert moment(scene.started[0]) <= shown <= moment(scene.started[1])

    jobs = {row[2]: row for row in browser.table(".workers")}
    assert set(jobs) == set(scene.held)
    for index, jid in enumerate(scene.held):
        process, thread, _, queue, name, args, _ = jobs[jid]
        assert process in processes
        assert scene.client.hexists(f"{process}:work", thread)
        assert (queue, name) == ("python", "Docs::Hold")
        assert args == f'"scene:gate:{index}", "busy", {index}'
    assert len(browser.times(".workers")) == 2
    for shown in browser.times(".workers"):
        assert moment(scene.began[0]) <= shown <= moment(scene.began[1])


def test_queues(scene: Scene, browser: Browser) -> None:
    browser.open("queues")
    browser.shot("queues")
    assert browser.summary() == scene.numbers()
    rows = {row[0]: row for row in browser.table()}
    assert {name: number(row[1]) for name, row in rows.items()} == {"python": 0, "waiting": 4, "ruby": 1}
    for name in ("waiting", "ruby"):
        since = scene.queued(name)[0]["enqueued_at"]
        # Up to one minute, a number of seconds; then, the moment and that number.
        seconds = float(rows[name][2].split()[-1].replace(",", ""))
        assert 0 <= seconds <= time.time() - since + 1


def test_one_queue(scene: Scene, browser: Browser) -> None:
    browser.open("queues", "waiting")
    browser.shot("queue")
    assert browser.summary() == scene.numbers()
    assert number(browser.text("h1 .badge")) == 4
    jids = [row.get_attribute("title") for row in browser.all(".queue tr[title]")]
    assert jids == [job["jid"] for job in reversed(scene.queued("waiting"))]
    rows = browser.table(".queue")
    assert [row[0] for row in rows] == ["4", "3", "2", "1"]
    assert [row[1] for row in rows] == ["Docs::Extract", *["Docs::Waiting"] * 3]
    assert rows[0][2] == '"Rails, too"'
    assert [row.get_attribute("textContent") for row in browser.all(".queue .toggle")] == [
        f"{index}, {ODD_IN_RUBY}" for index in (2, 1, 0)
    ]

    browser.open("queues", "ruby")
    (row,) = browser.table(".queue")
    (job,) = scene.queued("ruby")
    assert job["workflow_run_id"] == scene.carried_to_ruby
    assert row[1:3] == [f"Reports::Build wf:{scene.carried_to_ruby[:8]}", "7"]


def test_retries(scene: Scene, browser: Browser) -> None:
    browser.open("retries")
    browser.shot("retries")
    assert browser.summary() == scene.numbers()
    members = scene.members("retry")
    rows = browser.table()
    assert len(rows) == 2
    assert browser.times("table") == [moment(score) for _, score in members]
    for row, (job, _) in zip(rows, members):
        assert row[2:4] == [str(job["retry_count"]), "python"]
        assert row[6] == f"ValueError: {job['error_message']}"
        assert row[6].endswith(" is <b>unreadable</b>: naïve, сломано")
    by_jid = {job["jid"]: row for row, (job, _) in zip(rows, members)}
    plain = by_jid[scene.retrying]
    assert plain[4] == "Docs::Extract"
    assert plain[5].endswith(f'", {ODD_IN_RUBY}')
    carrier = of_run(scene, "retry", scene.retrying_step)
    assert carrier["class"] == "Sidekiq::Workflow::NoopWorker"
    step = by_jid[carrier["jid"]]
    assert step[4] == f"{NO_CONSTANT} nlp wf:{scene.retrying_step[:8]}"


def test_one_retry(scene: Scene, browser: Browser) -> None:
    browser.open("retries", key(scene, "retry", scene.retrying))
    browser.shot("retry")
    assert browser.summary() == scene.numbers()
    found = scene.find("retry", scene.retrying)
    assert found is not None
    job, score = found
    facts = browser.facts()
    assert facts["Queue"] == "python"
    assert facts["Job"] == "Docs::Extract"
    assert facts["Arguments"] == f'"{job["args"][0]}", {ODD_IN_RUBY}'
    assert facts["JID"] == scene.retrying
    assert facts["Error Class"] == "ValueError"
    assert facts["Error Message"] == job["error_message"]
    assert "scene_actors.py:" in facts["Error Backtrace"]
    assert "in 'extract'" in facts["Error Backtrace"].split("\n")[0]
    shown = dict(zip(("created", "enqueued", "failed", "next"), browser.times("#page")))
    assert shown["created"] <= shown["enqueued"] <= shown["failed"] <= moment(scene.began[1])
    assert moment(scene.started[0]) <= shown["created"]
    # One to two hours, by chance.
    assert moment(scene.started[0] + RETRY_IN / 2000) <= shown["next"] <= moment(scene.began[1] + RETRY_IN / 1000)
    assert shown["created"] == moment(job["created_at"])
    assert shown["enqueued"] == moment(job["enqueued_at"])
    assert shown["failed"] == moment(job["failed_at"])
    assert shown["next"] == moment(score)


def test_scheduled(scene: Scene, browser: Browser) -> None:
    browser.open("scheduled")
    browser.shot("scheduled")
    assert browser.summary() == scene.numbers()
    members = scene.members("schedule")
    assert browser.times("table") == [moment(score) for _, score in members]
    first, second = browser.table()
    assert first[2:] == ["python", "Docs::Extract", ODD_IN_RUBY]
    assert second[2:] == ["python", f"{NO_CONSTANT} nlp wf:{scene.scheduled_step[:8]}", '"tomorrow"']


def test_one_scheduled(scene: Scene, browser: Browser) -> None:
    browser.open("scheduled", key(scene, "schedule", scene.scheduled))
    browser.shot("scheduled-job")
    assert browser.summary() == scene.numbers()
    facts = browser.facts()
    assert (facts["Queue"], facts["Job"], facts["JID"]) == ("python", "Docs::Extract", scene.scheduled)
    assert facts["Arguments"] == ODD_IN_RUBY
    assert facts["Enqueued"] == "Not yet enqueued"
    found = scene.find("schedule", scene.scheduled)
    assert found is not None
    assert {moment(found[0]["created_at"]), moment(found[1])} <= set(browser.times("#page"))


def test_dead(scene: Scene, browser: Browser) -> None:
    browser.open("morgue")
    browser.shot("dead")
    assert browser.summary() == scene.numbers()
    members = list(reversed(scene.members("dead")))
    assert browser.times("table") == [moment(score) for _, score in members]
    rows = {job["jid"]: row for row, (job, _) in zip(browser.table(), members)}
    assert len(rows) == 2
    assert rows[scene.dead][2:4] == ["python", "Docs::Once"]
    assert rows[scene.dead][4].endswith(f'", {ODD_IN_RUBY}')
    step = rows[of_run(scene, "dead", scene.stuck)["jid"]]
    assert step[3] == f"Docs::Once wf:{scene.stuck[:8]}"
    assert step[5].startswith("ValueError: page ")


def test_one_dead(scene: Scene, browser: Browser) -> None:
    job = of_run(scene, "dead", scene.stuck)
    browser.open("morgue", key(scene, "dead", job["jid"]))
    browser.shot("dead-job")
    assert browser.summary() == scene.numbers()
    facts = browser.facts()
    assert (facts["Queue"], facts["Job"]) == ("python", f"Docs::Once wf:{scene.stuck[:8]}")
    assert (facts["JID"], facts["Arguments"]) == (job["jid"], f'"{job["args"][0]}"')
    assert facts["Error Class"] == "ValueError"
    # The run that goes on when this job is retried.
    assert scene.stuck in facts["Extras"]
    assert "Docs::Finish" in facts["Extras"]


def test_a_run_s_jobs_by_its_tag(scene: Scene, browser: Browser) -> None:
    """A click on the tag of a run leaves the jobs of this run."""
    browser.open("morgue")
    assert len(browser.table()) == 2
    browser.press(browser.row(f"wf:{scene.stuck[:8]}").find_element("partial link text", "wf:"))
    browser.shot("dead-of-a-run")
    (row,) = browser.table()
    assert row[3] == f"Docs::Once wf:{scene.stuck[:8]}"


@pytest.mark.parametrize("page", ["retries", "scheduled", "morgue"])
def test_filter(scene: Scene, browser: Browser, page: str) -> None:
    """What is written into the box of a page finds jobs by any part of them."""
    browser.open(page)
    assert len(browser.table()) == 2
    browser.enter("substr", "мир ☃ 😀")
    (row,) = browser.table()
    assert ODD_IN_RUBY in " ".join(row)
    browser.enter("substr", "nowhere")
    assert browser.table() == []


def test_metrics(scene: Scene, browser: Browser) -> None:
    browser.open("metrics")
    browser.shot("metrics")
    rows = {row[0]: row for row in browser.table()}
    shown = {name: (number(row[1]), number(row[2])) for name, row in rows.items()}
    assert shown == scene.by_name()
    assert shown["Docs::Extract"][0] > 14
    assert shown[NO_CONSTANT] == (3, 1)
    for name, (done, _) in shown.items():
        ms = sum(int(scene.client.hget(key, f"{name}|ms") or 0) for key in scene.client.keys("j|20*"))
        total, average = (float(cell.replace(",", "")) for cell in rows[name][3:5])
        assert total == pytest.approx(ms / 1000, abs=0.0051)
        assert average == pytest.approx(ms / 1000 / done if done else 0, abs=0.0051)
        # extract sleeps for 10 ms.
        assert ms >= 10 * done or name == "Docs::Finish"
    series = json.loads(browser.one("#job-metrics-overview-chart").get_attribute("textContent") or "")["series"]
    assert set(series) == set(shown)
    browser.enter("substr", "RÉSUMÉ")
    assert [row[0] for row in browser.table()] == [NO_CONSTANT]
    browser.enter("substr", "docs::e")
    browser.press(browser.row("Docs::Extract").find_element("link text", "Docs::Extract"))
    assert browser.path.startswith("/metrics/Docs::Extract")


@pytest.mark.parametrize(("name", "shot"), [("Docs::Extract", "metrics-job"), (NO_CONSTANT, "metrics-carrier")])
def test_metrics_of_one_job(scene: Scene, browser: Browser, name: str, shot: str) -> None:
    browser.open("metrics", name)
    browser.shot(shot)
    assert name in browser.text("h1")
    done, _ = scene.by_name()[name]
    totals = json.loads(browser.one("#hist-totals-chart").get_attribute("textContent") or "")
    assert sum(totals["series"]) == done
    bubbles = json.loads(browser.one("#hist-bubble-chart").get_attribute("textContent") or "")["hist"]
    assert sum(sum(minute) for minute in bubbles.values()) == done
    assert sum(totals["series"][:20]) == done, "these jobs take far less than a minute"


def test_nothing_is_missing_that_pages_load(scene: Scene, browser: Browser) -> None:
    """The browser's console: no script fails, and no file is missing but what Debian leaves out."""
    browser.driver.get_log("browser")
    for path in (
        (),
        ("busy",),
        ("queues", "waiting"),
        ("retries",),
        ("morgue",),
        ("metrics",),
        ("metrics", "Docs::Once"),
    ):
        browser.open(*path)
        for entry in browser.driver.get_log("browser"):
            if entry["level"] == "SEVERE":
                assert any(name in entry["message"] for name in NOT_IN_DEBIAN), entry["message"]


def test_odd_arguments_are_those_of_the_truth() -> None:
    """ODD_IN_RUBY is written by hand: Python reads the same from it."""
    python = ODD_IN_RUBY.replace("nil", "None").replace("true", "True").replace("=>", ": ")
    assert list(ast.literal_eval(f"[{python}]")) == ODD
