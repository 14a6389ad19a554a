"""docs/observability.md says what is so, and its examples run."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from dramatiq_sidekiq_flow.store.connection import connect
from dramatiq_sidekiq_flow.telemetry import opentelemetry
from dramatiq_sidekiq_flow.telemetry.exposition import Exposition
from dramatiq_sidekiq_flow.telemetry.prometheus import _Metrics

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "observability.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def table(heading: str) -> set[str]:
    """What stands as code in the first column of a section's tables."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    cells = re.findall(r"^\|([^|]*)\|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)} - {"sidekiq_flow_"}


def test_every_metric_is_on_the_page_and_no_other(redis_url: str) -> None:
    exposition = Exposition(connect(redis_url), "127.0.0.1", 0, None, several=False)
    _Metrics.new(exposition.own)
    # Beside each counter, when it was made.
    families = [f for f in text_string_to_metric_families(exposition.text()) if not f.name.endswith("_created")]
    names = {f.name.removeprefix("sidekiq_flow_") + ("_total" if f.type == "counter" else "") for f in families}
    # When a counter was made: prometheus_client's own, for each counter that has a value.
    assert {name for name in names if not name.endswith("_created")} == table("Prometheus")


def test_every_attribute_is_on_the_page_and_no_other() -> None:
    names = {value for name, value in vars(opentelemetry).items() if name.isupper() and isinstance(value, str)}
    assert names == table("OpenTelemetry")


def test_the_formatter() -> None:
    (code,) = (example for example in EXAMPLES if "JsonFormatter" in example)
    scope: dict[str, type[logging.Formatter]] = {}
    exec(code, scope)  # noqa: S102
    record = logging.makeLogRecord({"msg": "done", "levelname": "INFO", "class": "step", "elapsed": 0.1})
    line = json.loads(scope["JsonFormatter"]().format(record))
    assert line == {"level": "INFO", "message": "done", "class": "step", "elapsed": 0.1}


def test_the_examples_run_together(redis_url: str) -> None:
    begin = """
import dramatiq
from dramatiq_sidekiq_flow import SidekiqBroker
broker = SidekiqBroker(url="embedded://")
dramatiq.set_broker(broker)
"""
    end = """
@dramatiq.actor(queue_name="python")
def step(): ...

step.send()
worker = dramatiq.Worker(broker)
worker.start()
broker.join("python", timeout=60_000)
worker.stop()
provider.shutdown()
"""
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([begin, *EXAMPLES, end]).replace("embedded://", redis_url)],
        env={**os.environ, "dramatiq_prom_port": "0"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert '"name": "create step"' in done.stdout
    assert '"name": "process step"' in done.stdout
