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

from interop.tests.processes import ruby
from interop.web.pages import Pages, Version, number
from interop.web.scene import ODD, THREADS, Scene
from interop.web.scene_actors import NO_CONSTANT, RETRY_IN

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
def scene(filled: Scene, page: Pages) -> Iterator[Scene]:
    """The filled scene, which stands still: no test of this module changes it."""
    before = filled.numbers()
    yield filled
    for worker in filled.workers:
        worker.check()
    assert filled.numbers() == before
    assert set(filled.busy()) == set(filled.held)


def addresses(scene: Scene, version: Version) -> list[str]:
    """Each page that a GET can ask for, with something on it."""
    jobs = {
        "/retries/": key(scene, "retry", scene.retrying),
        "/scheduled/": key(scene, "schedule", scene.scheduled),
        "/morgue/": key(scene, "dead", scene.dead),
    }
    names = ["python", "waiting", "ruby"]
    classes = [name for name in scene.by_name() if name.isascii() or not version.ascii_only]
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
        *(f"/metrics?period={period}" for period in ("", *version.periods)),
        *(f"/metrics/{quote(name, safe='')}?period=8h" for name in classes),
        "/stats",
        "/stats/queues",
        "/dashboard/stats",
        *(f"{path}?substr={quote('Docs')}" for path in version.filters),
        *(["/profiles"] if version.left_out else []),
    ]


def test_each_address_answers(web: str, scene: Scene, version: Version) -> None:
    """Those of every route that this version of Sidekiq has."""
    routes = set(json.loads(ruby(scene.url, "-rsidekiq/web", "-rjson", "-e", f"puts JSON.generate({version.routes})")))
    assert version.left_out < routes
    asked = addresses(scene, version)
    for route in routes - version.left_out:
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


def test_dashboard(scene: Scene, page: Pages) -> None:
    page.dashboard.open()
    page.shot("dashboard")
    numbers = scene.numbers()
    assert page.dashboard.summary() == numbers
    assert numbers["Processed"] > 15
    assert numbers["Failed"] == 4
    # A test that runs over midnight in UTC has two days' worth.
    history = page.dashboard.history()
    assert sum(history["processed"]) == numbers["Processed"]
    assert sum(history["failed"]) == numbers["Failed"]
    assert len(history["processed"]) == 30
    assert page.dashboard.redis_version() == scene.client.info("server")["redis_version"]


def test_busy(scene: Scene, page: Pages) -> None:
    page.busy.open()
    page.shot("busy")
    assert page.busy.summary() == scene.numbers()
    processes = scene.processes()
    totals = page.busy.totals()
    assert totals.pop("RSS")
    assert totals == {
        "Processes": "2",
        "Threads": str(2 * THREADS),
        "Busy": "2",
        "Utilization": f"{round(2 / (2 * THREADS) * 100)}%",
    }
    rss = sum(int(record["rss"]) for record in processes.values())
    assert rss > 10_000

    assert len(page.busy.processes()) == 2
    for identity, record in processes.items():
        info = record["info"]
        row = page.busy.process(identity)
        assert row["Name"].startswith(f"{info['hostname']}:{info['pid']} ")
        assert "docs python beta" in row["Name"]
        assert "Queues: python" in row["Name"]
        assert "waiting" not in row["Name"]
        assert f"Version: {info['version']}" in row["Name"]
        assert "embedded" not in row["Name"]
        assert not page.busy.is_quiet(row)
        assert [number(row["Threads"]), number(row["Busy"])] == [THREADS, int(record["busy"])]
        (started,) = row.times
        assert moment(scene.started[0]) <= started <= moment(scene.started[1])

    jobs = {row["JID"]: row for row in page.busy.jobs()}
    assert set(jobs) == set(scene.held)
    for index, jid in enumerate(scene.held):
        row = jobs[jid]
        assert row["Process"] in processes
        assert scene.client.hexists(f"{row['Process']}:work", row["TID"])
        assert (row["Queue"], row["Job"]) == ("python", "Docs::Hold")
        assert row["Arguments"] == f'"scene:gate:{index}", "busy", {index}'
        (began,) = row.times
        assert moment(scene.began[0]) <= began <= moment(scene.began[1])


def test_queues(scene: Scene, page: Pages) -> None:
    page.queues.open()
    page.shot("queues")
    assert page.queues.summary() == scene.numbers()
    rows = page.queues.queues()
    assert {name: number(row["Size"]) for name, row in rows.items()} == {"python": 0, "waiting": 4, "ruby": 1}
    for name in ("waiting", "ruby"):
        since = scene.queued(name)[0]["enqueued_at"]
        # Up to one minute, a number of seconds; then, the moment and that number.
        seconds = float(rows[name]["Latency"].split()[-1].replace(",", ""))
        assert 0 <= seconds <= time.time() - since + 1


def test_one_queue(scene: Scene, page: Pages) -> None:
    page.queue.open("waiting")
    page.shot("queue")
    assert page.queue.summary() == scene.numbers()
    assert page.queue.size() == 4
    assert page.queue.jids() == [job["jid"] for job in reversed(scene.queued("waiting"))]
    rows = page.queue.jobs()
    assert page.queue.positions() == ["4", "3", "2", "1"]
    assert [row["Job"] for row in rows] == ["Docs::Extract", *["Docs::Waiting"] * 3]
    assert rows[0]["Arguments"] == '"Rails, too"'
    assert page.queue.unfolded() == [f"{index}, {ODD_IN_RUBY}" for index in (2, 1, 0)]

    page.queue.open("ruby")
    (row,) = page.queue.jobs()
    (job,) = scene.queued("ruby")
    assert job["workflow_run_id"] == scene.carried_to_ruby
    assert (row["Job"], row["Arguments"]) == (f"Reports::Build wf:{scene.carried_to_ruby[:8]}", "7")


def test_retries(scene: Scene, page: Pages) -> None:
    page.retries.open()
    page.shot("retries")
    assert page.retries.summary() == scene.numbers()
    members = scene.members("retry")
    rows = page.retries.jobs()
    assert len(rows) == 2
    assert [row.times for row in rows] == [[moment(score)] for _, score in members]
    for row, (job, _) in zip(rows, members):
        assert (row["Retry Count"], row["Queue"]) == (str(job["retry_count"]), "python")
        assert row["Error"] == f"ValueError: {job['error_message']}"
        assert row["Error"].endswith(" is <b>unreadable</b>: naïve, сломано")
    by_jid = {job["jid"]: row for row, (job, _) in zip(rows, members)}
    plain = by_jid[scene.retrying]
    assert plain["Job"] == "Docs::Extract"
    assert plain["Arguments"].endswith(f'", {ODD_IN_RUBY}')
    carrier = of_run(scene, "retry", scene.retrying_step)
    assert carrier["class"] == "Sidekiq::Workflow::NoopWorker"
    assert by_jid[carrier["jid"]]["Job"] == f"{NO_CONSTANT} nlp wf:{scene.retrying_step[:8]}"


def test_one_retry(scene: Scene, page: Pages) -> None:
    page.retries.open_job(key(scene, "retry", scene.retrying))
    page.shot("retry")
    assert page.retries.summary() == scene.numbers()
    found = scene.find("retry", scene.retrying)
    assert found is not None
    job, score = found
    facts = page.retries.facts()
    assert facts["Queue"] == "python"
    assert facts["Job"] == "Docs::Extract"
    assert facts["Arguments"] == f'"{job["args"][0]}", {ODD_IN_RUBY}'
    assert facts["JID"] == scene.retrying
    assert facts["Error Class"] == "ValueError"
    assert facts["Error Message"] == job["error_message"]
    assert "scene_actors.py:" in facts["Error Backtrace"]
    assert "in 'extract'" in facts["Error Backtrace"].split("\n")[0]
    shown = dict(zip(("created", "enqueued", "failed", "next"), page.retries.times()))
    assert shown["created"] <= shown["enqueued"] <= shown["failed"] <= moment(scene.began[1])
    assert moment(scene.started[0]) <= shown["created"]
    # One to two hours, by chance.
    assert moment(scene.started[0] + RETRY_IN / 2000) <= shown["next"] <= moment(scene.began[1] + RETRY_IN / 1000)
    assert shown["created"] == moment(job["created_at"])
    assert shown["enqueued"] == moment(job["enqueued_at"])
    assert shown["failed"] == moment(job["failed_at"])
    assert shown["next"] == moment(score)


def test_scheduled(scene: Scene, page: Pages) -> None:
    page.scheduled.open()
    page.shot("scheduled")
    assert page.scheduled.summary() == scene.numbers()
    first, second = page.scheduled.jobs()
    assert [first.times, second.times] == [[moment(score)] for _, score in scene.members("schedule")]
    assert (first["Queue"], first["Job"], first["Arguments"]) == ("python", "Docs::Extract", ODD_IN_RUBY)
    assert (second["Queue"], second["Arguments"]) == ("python", '"tomorrow"')
    assert second["Job"] == f"{NO_CONSTANT} nlp wf:{scene.scheduled_step[:8]}"


def test_one_scheduled(scene: Scene, page: Pages) -> None:
    page.scheduled.open_job(key(scene, "schedule", scene.scheduled))
    page.shot("scheduled-job")
    assert page.scheduled.summary() == scene.numbers()
    facts = page.scheduled.facts()
    assert (facts["Queue"], facts["Job"], facts["JID"]) == ("python", "Docs::Extract", scene.scheduled)
    assert facts["Arguments"] == ODD_IN_RUBY
    assert facts["Enqueued"] == "Not yet enqueued"
    found = scene.find("schedule", scene.scheduled)
    assert found is not None
    assert {moment(found[0]["created_at"]), moment(found[1])} <= set(page.scheduled.times())


def test_dead(scene: Scene, page: Pages) -> None:
    page.dead.open()
    page.shot("dead")
    assert page.dead.summary() == scene.numbers()
    members = list(reversed(scene.members("dead")))
    rows = page.dead.jobs()
    assert len(rows) == 2
    assert [row.times for row in rows] == [[moment(score)] for _, score in members]
    by_jid = {job["jid"]: row for row, (job, _) in zip(rows, members)}
    plain = by_jid[scene.dead]
    assert (plain["Queue"], plain["Job"]) == ("python", "Docs::Once")
    assert plain["Arguments"].endswith(f'", {ODD_IN_RUBY}')
    step = by_jid[of_run(scene, "dead", scene.stuck)["jid"]]
    assert step["Job"] == f"Docs::Once wf:{scene.stuck[:8]}"
    assert step["Error"].startswith("ValueError: page ")


def test_one_dead(scene: Scene, page: Pages) -> None:
    job = of_run(scene, "dead", scene.stuck)
    page.dead.open_job(key(scene, "dead", job["jid"]))
    page.shot("dead-job")
    assert page.dead.summary() == scene.numbers()
    facts = page.dead.facts()
    assert (facts["Queue"], facts["Job"]) == ("python", f"Docs::Once wf:{scene.stuck[:8]}")
    assert (facts["JID"], facts["Arguments"]) == (job["jid"], f'"{job["args"][0]}"')
    assert facts["Error Class"] == "ValueError"
    # The run that goes on when this job is retried.
    assert scene.stuck in facts["Extras"]
    assert "Docs::Finish" in facts["Extras"]


def test_a_run_s_jobs_by_its_tag(scene: Scene, page: Pages) -> None:
    """A click on the tag of a run leaves the jobs of this run."""
    page.dead.open()
    assert len(page.dead.jobs()) == 2
    page.dead.follow_tag(f"wf:{scene.stuck[:8]}")
    page.shot("dead-of-a-run")
    (row,) = page.dead.jobs()
    assert row["Job"] == f"Docs::Once wf:{scene.stuck[:8]}"


@pytest.mark.parametrize("name", ["retry", "schedule", "dead"])
def test_filter(scene: Scene, page: Pages, name: str) -> None:
    """What is written into the box of a page finds jobs by any part of them."""
    jobs = page.of_set(name)
    jobs.open()
    assert len(jobs.jobs()) == 2
    jobs.filter("мир ☃ 😀")
    (row,) = jobs.jobs()
    assert ODD_IN_RUBY in row["Arguments"]
    jobs.filter("nowhere")
    assert jobs.jobs() == []


def test_metrics(scene: Scene, page: Pages) -> None:
    page.metrics.open()
    page.shot("metrics")
    rows = page.metrics.classes()
    shown = _counts(page)
    assert shown == scene.by_name()
    assert shown["Docs::Extract"][0] > 14
    assert shown[NO_CONSTANT] == (3, 1)
    for name, (done, _) in shown.items():
        ms = _milliseconds(scene, name)
        total, average = (
            float(rows[name][f"{what} Execution Time (Seconds)"].replace(",", "")) for what in ("Total", "Average")
        )
        assert total == pytest.approx(ms / 1000, abs=0.0051)
        assert average == pytest.approx(ms / 1000 / done if done else 0, abs=0.0051)
        # extract sleeps for 10 ms.
        assert ms >= 10 * done or name == "Docs::Finish"
    assert page.metrics.charted() == set(shown)
    page.metrics.filter("RÉSUMÉ")
    assert set(page.metrics.classes()) == {NO_CONSTANT}
    page.metrics.filter("docs::e")
    page.metrics.follow("Docs::Extract")
    assert page.browser.path.startswith("/metrics/Docs::Extract")


def _counts(page: Pages) -> dict[str, tuple[int, int]]:
    """Class -> how many executions succeeded and failed, as the page has it."""
    rows = page.metrics.classes()
    return {name: (number(row["Success"]), number(row["Failure"])) for name, row in rows.items()}


def _milliseconds(scene: Scene, name: str) -> int:
    """How long a class took, by the keys that Sidekiq 7 reads: no Ruby process runs, so that Python writes for both."""
    return sum(int(scene.client.hget(key, f"{name}|ms") or 0) for key in scene.client.keys("j|????????|*"))


def test_metrics_of_each_period(scene: Scene, page: Pages, version: Version) -> None:
    """Long periods are added up from other keys than short ones."""
    page.metrics.open()
    assert tuple(page.metrics.periods()) == version.periods
    for period in version.periods:
        page.metrics.open(period)
        assert _counts(page) == scene.by_name(), period
    page.shot(f"metrics-{version.periods[-1]}")


@pytest.mark.parametrize(("name", "shot"), [("Docs::Extract", "metrics-job"), (NO_CONSTANT, "metrics-carrier")])
def test_metrics_of_one_job(scene: Scene, page: Pages, version: Version, name: str, shot: str) -> None:
    if version.ascii_only and not name.isascii():
        # Sidekiq's own fault, for a Ruby class of this name, too. A version that mends it is noticed here.
        with pytest.raises(AssertionError, match="500 for"):
            page.metrics.open_class(name)
        return
    page.metrics.open_class(name)
    page.shot(shot)
    assert name in page.metrics.title()
    done, _ = scene.by_name()[name]
    histogram = page.metrics.histogram()
    assert sum(histogram) == done
    assert sum(histogram[:20]) == done, "these jobs take far less than a minute"
    assert sum(sum(minute) for minute in page.metrics.minutes().values()) == done


def test_nothing_is_missing_that_pages_load(scene: Scene, page: Pages) -> None:
    """The browser's console: no script fails, and no file is missing but what Debian leaves out."""
    log = page.browser.driver.get_log
    log("browser")
    for path in (
        (),
        ("busy",),
        ("queues", "waiting"),
        ("retries",),
        ("morgue",),
        ("metrics",),
        ("metrics", "Docs::Once"),
    ):
        page.browser.open(*path)
        for entry in log("browser"):
            if entry["level"] == "SEVERE":
                assert any(name in entry["message"] for name in NOT_IN_DEBIAN), entry["message"]


def test_odd_arguments_are_those_of_the_truth() -> None:
    """ODD_IN_RUBY is written by hand: Python reads the same from it."""
    python = ODD_IN_RUBY.replace("nil", "None").replace("true", "True").replace("=>", ": ")
    assert list(ast.literal_eval(f"[{python}]")) == ODD
