"""What the benchmarks make of their figures: goals, limits, tables, and the proxy.  No server."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import goals, limits
from benchmarks.catalogue import measures
from benchmarks.document import Document
from benchmarks.markdown import page
from benchmarks.measures import Figure, Measure
from benchmarks.peers import PEERS, Peer, SidekiqFlow
from benchmarks.process import Report, WorkerFailed
from benchmarks.proxy import Relay
from benchmarks.report import tables
from benchmarks.results import Result
from benchmarks.ruby_peers import RUBY_PEERS
from benchmarks.scale import Cost, table

RATE = {"rate": Figure("rate", "jobs/s", higher_is_better=True)}


def document(measure: str, figure: str, **rounds: list[float]) -> Document:
    """Of one figure; a contender's name is written with underscores."""
    found = {peer.replace("_", "-"): values for peer, values in rounds.items()}
    entry = {"name": measure, "figures": {figure: {"rounds": found}}}
    return Document({"peers": dict.fromkeys(found, "title"), "measures": [entry]})


def result(**samples: list[float]) -> Result:
    """Of the figure rate."""
    names = frozenset(peer.name for peer in PEERS)
    measure = Measure("throughput-1", "throughput", RATE, 1, 3, lambda scene: {}, names)
    made = Result(measure)
    for peer, values in samples.items():
        made.samples[peer.replace("_", "-")] += [{"rate": value} for value in values]
    return made


# -- the JSON object ---------------------------------------------------------------


def test_the_ratio_is_taken_within_each_round() -> None:
    # In round 2 the machine was slow for both.
    found = document("send", "rate", sidekiq_flow=[200.0, 20.0, 210.0], sidekiq_8=[100.0, 10.0, 100.0])
    assert found.ratio("send", "rate", "sidekiq-flow", "sidekiq-8") == 2.0


def test_what_was_not_measured_has_no_value() -> None:
    found = document("send", "rate", sidekiq_flow=[1.0])
    assert found.value("send", "rate", "sidekiq-8") is None
    assert found.value("chain-10", "step", "sidekiq-flow") is None
    assert found.ratio("send", "rate", "sidekiq-flow", "sidekiq-8") is None


def test_a_run_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    made = result(sidekiq_flow=[100.0, 300.0], redis_broker=[50.0, 100.0])
    path = tmp_path / "out.json"
    names = [peer.name for peer in PEERS]
    path.write_text(json.dumps({"peers": {}, "measures": [made.as_json(names)]}))
    found = Document.read(path)
    assert found.value("throughput-1", "rate", "sidekiq-flow") == 200.0
    assert found.ratio("throughput-1", "rate", "sidekiq-flow", "redis-broker") == 2.5
    assert found.measured("throughput") == ["throughput-1"]


# -- goals -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at_least", "ours", "reached"), [(True, 2.0, True), (True, 1.9, False), (False, 2.0, True), (False, 2.1, False)]
)
def test_a_goal_is_reached_at_its_bound(at_least: bool, ours: float, reached: bool) -> None:
    goal = goals.Goal("a goal", goals.ours("send", "rate"), 2.0, at_least)
    assert goal.reached(document("send", "rate", sidekiq_flow=[ours])) is reached


def test_a_goal_that_was_not_measured_is_neither_reached_nor_missed() -> None:
    goal = goals.Goal("a goal", goals.ours("send", "rate"), 2.0)
    assert goal.reached(document("chain-10", "step", sidekiq_flow=[1.0])) is None


def test_the_gem_is_the_newest_one_that_was_measured() -> None:
    value = goals.ratio("chain-100", "step", *goals.RUBY)
    assert value(document("chain-100", "step", sidekiq_flow=[1.0], sidekiq_7=[4.0], sidekiq_8=[2.0])) == 0.5
    assert value(document("chain-100", "step", sidekiq_flow=[1.0], sidekiq_7=[4.0])) == 0.25


def bytes_of(measure: str, bytes_in: float, bytes_out: float, peer: str = "sidekiq-flow") -> dict[str, Any]:
    figures = {"bytes_in": {"rounds": {peer: [bytes_in]}}, "bytes_out": {"rounds": {peer: [bytes_out]}}}
    return {"name": measure, "figures": figures}


def test_growth_compares_the_sums_of_two_measures() -> None:
    found = Document({"peers": {}, "measures": [bytes_of("chain-1000", 300, 300), bytes_of("chain-100", 100, 200)]})
    assert goals.growth("chain-1000", "chain-100", "bytes_in", "bytes_out")(found) == 2.0
    assert goals.growth("chain-10000", "chain-100", "bytes_in", "bytes_out")(found) is None


def test_bytes_are_those_in_and_out() -> None:
    ours, theirs = bytes_of("chain-10", 100, 200), bytes_of("chain-10", 300, 300, "sidekiq-8")
    ours["figures"]["bytes_in"]["rounds"] |= theirs["figures"]["bytes_in"]["rounds"]
    ours["figures"]["bytes_out"]["rounds"] |= theirs["figures"]["bytes_out"]["rounds"]
    found = Document({"peers": {}, "measures": [ours]})
    assert goals.bytes_ratio("chain-10", *goals.RUBY)(found) == 0.5


def test_the_table_has_a_row_for_each_goal_and_the_sums() -> None:
    lines = goals.table(document("send", "rate", sidekiq_flow=[140.0], sidekiq_8=[100.0])).splitlines()
    row = next(line for line in lines if line.startswith("send() / perform_async"))
    assert row.split()[-4:] == ["1.4x", ">=", "1.3x", "reached"]
    assert lines[-1] == f"1 reached, 0 missed, {len(goals.GOALS) - 1} not measured"
    assert all(any(line.startswith(goal.title) for line in lines) for goal in goals.GOALS)


def test_each_goal_names_a_measure_and_a_contender_that_exist() -> None:
    peers = [peer.name for peer in (*PEERS, *RUBY_PEERS)]
    costs = {"reads": 1.0, "commands": 1.0, "bytes_in": 1.0, "bytes_out": 1.0}
    entries = []
    for measure in measures(quick=False):
        figures = {**dict.fromkeys(measure.figures, 1.0), **costs}
        rounds = {peer: [1.0] for peer in peers if peer in measure.peers}
        entries.append({"name": measure.name, "figures": {name: {"rounds": rounds} for name in figures}})
    found = Document({"peers": dict.fromkeys(peers, ""), "measures": entries})
    assert [goal.title for goal in goals.GOALS if goal.value(found) is None] == []


# -- limits ------------------------------------------------------------------------


def test_the_best_round_counts_for_a_limit() -> None:
    limit = limits.Limit("send", "reads", 1.0)
    assert not limit.exceeded(document("send", "reads", sidekiq_flow=[1.4, 1.0]))
    assert limit.exceeded(document("send", "reads", sidekiq_flow=[1.4, 1.1]))


def test_a_limit_that_was_not_measured_is_not_exceeded() -> None:
    found = document("send", "reads", redis_broker=[9.0])
    assert limits.exceeded(found) == []
    assert "send" not in limits.table(found)


def test_the_table_of_limits_names_what_is_exceeded() -> None:
    found = document("send", "reads", sidekiq_flow=[99.0])
    assert [(limit.measure, limit.figure) for limit in limits.exceeded(found)] == [("send", "reads")]
    assert limits.table(found).splitlines()[-1].split()[-1] == "EXCEEDED"


def test_each_limit_is_of_a_measure_of_the_quick_run() -> None:
    quick = {measure.name for measure in measures(quick=True) if measure.quick}
    assert set(limits.TABLE) <= quick


# -- the tables of a run -----------------------------------------------------------


def test_the_tables_show_who_was_left_out_and_who_failed() -> None:
    made = result(sidekiq_flow=[100.0])
    made.left_out["redis-broker"] = "it has no such call"
    made.failures["dramatiq-workflow"] = "ValueError: no"
    peers: list[type[Peer]] = list(PEERS)
    text = tables([made], peers)
    assert "left out: it has no such call" in text
    assert "failed: ValueError: no" in text


def test_a_run_alone_has_no_ratios() -> None:
    text = tables([result(sidekiq_flow=[100.0])], [SidekiqFlow])
    assert "RATIOS" not in text
    assert text.count("throughput") == 1


# -- reports of workers ------------------------------------------------------------


def answer(*starts: tuple[int, float], acked: int = 2) -> dict[str, Any]:
    return {"acked": acked, "starts": list(starts), "last_ack": 9.0, "cpu": 1.0, "rss": 1.0, "peak": 2.0}


def test_the_reports_of_two_workers_are_one() -> None:
    report = Report.of([answer((1, 2.0), (2, 4.0)), answer((0, 1.0), (3, 5.0))])
    report.check(4, ordered=True)
    assert (report.acked, report.cpu, report.peak) == (4, 2.0, 2.0)
    assert (report.first_start, report.last_start) == (1.0, 5.0)


@pytest.mark.parametrize("starts", [[(0, 1.0)], [(0, 1.0), (0, 2.0)], [(0, 1.0), (1, 2.0), (1, 3.0)]])
def test_a_job_that_ran_twice_or_never_spoils_the_sample(starts: list[tuple[int, float]]) -> None:
    with pytest.raises(WorkerFailed, match="twice or never"):
        Report.of([answer(*starts)]).check(2, ordered=False)


def test_steps_out_of_order_spoil_the_sample_of_a_chain() -> None:
    report = Report.of([answer((1, 1.0), (0, 2.0))])
    report.check(2, ordered=False)
    with pytest.raises(WorkerFailed, match="out of order"):
        report.check(2, ordered=True)


# -- at scale ----------------------------------------------------------------------


def test_workers_saturate_first_on_few_hosts_and_redis_on_many() -> None:
    cost = Cost("job", server=10.0, worker=200.0, traffic=500.0)
    # Eight processes of 5,000 a second, and a Redis of 100,000.
    assert (cost.rate(1), cost.saturated(1), cost.servers(1)) == (40_000, "workers", 1)
    assert (cost.rate(10), cost.saturated(10), cost.servers(10)) == (100_000, "Redis", 4)


def test_the_costs_of_a_million_are_seconds_and_gigabytes() -> None:
    figures = {"server_cpu": 10.0, "cpu": 200.0, "bytes_in": 300.0, "bytes_out": 200.0}
    rounds = {name: {"rounds": {"sidekiq-flow": [value]}} for name, value in figures.items()}
    found = Document({"peers": {}, "measures": [{"name": "members-1", "figures": rounds}]})
    assert table(found).splitlines()[-1] == "| member of a group | 10 s | 200 s | 0.50 GB |"
    assert "chain" not in table(found)


def test_the_page_has_a_row_for_each_figure_and_goal() -> None:
    made = result(sidekiq_flow=[100.0], redis_broker=[50.0])
    names = [peer.name for peer in PEERS]
    about = {"machine": "Linux", "cpus": 2, "cpu": "x", "python": "3", "versions": {"redis-py": "8"}}
    peers = {name: name for name in names}
    server = {"name": "valkey", "version": "9"}
    found = Document({**about, "server": server, "peers": peers, "measures": [made.as_json(names)]})
    lines = page(found).splitlines()
    assert "| throughput: rate, jobs/s | 100 | 50.0 |  |" in lines
    assert "| no-op jobs, 1 process / RedisBroker | 2x | >= 15x | missed |" in lines


# -- the proxy ---------------------------------------------------------------------


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that sends back all that it gets, on one connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()
    thread.join(10)
    listener.close()


def test_the_proxy_passes_on_all_bytes_in_order_and_the_end(echo: tuple[str, int]) -> None:
    relay = Relay(echo, 0.0005)
    ends, end = os.pipe()
    serving = threading.Thread(target=relay.run, args=(ends,), daemon=True)
    serving.start()
    # More than the buffers of all sockets on the way, and all sent before any is read: the
    # proxy must not wait until one side takes what the other one sends.
    sent = b"".join(number.to_bytes(4, "big") for number in range(4_000_000))
    with socket.create_connection(("127.0.0.1", relay.port), timeout=30) as client:
        client.sendall(sent)
        received = bytearray()
        while len(received) < len(sent):
            received += client.recv(1 << 18)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert received == sent
    os.close(end)
    serving.join(10)
    assert not serving.is_alive()
    os.close(ends)
