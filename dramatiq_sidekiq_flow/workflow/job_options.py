"""Job options of classes and actors: queue, retries, tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from ..broker import SidekiqBroker
from ..registry import ruby_job
from ..registry.registry import Entry, Registry
from ..store.connection import LOST
from ..wire.dialect import NOOP_CLASSES
from ..wire.nodes import Wire
from ..wire.payload import DEFAULTS

Options = Mapping[str, Any]


class JobOptions:
    """Lookup of the job options of classes and actors.

    The most specific source comes first: the actor of this process,
    ``WorkflowMiddleware(classes=...)``, RubyJob, and the registry for options
    that these do not set.

    Parameters:
      classes: Class name -> options; the middleware's ``classes``.
    """

    def __init__(self, broker: SidekiqBroker, classes: Mapping[str, Options], registry: Registry) -> None:
        self.logger = get_logger(__name__, type(self))
        self.broker = broker
        self.classes = dict(classes)
        self.registry = registry
        self._warned: set[str] = set()

    def find(self, name: str) -> Options | None:
        """Look up the options of a class or actor; None if it is unknown.

        Raises:
          ConnectionClosed: if the registry is needed and cannot be reached: a
            guess might send the step to a queue without a consumer.
        """
        declared = self.declared_here(name)
        if name in NOOP_CLASSES or (declared is not None and "queue" in declared and "retry" in declared):
            return declared
        entry = self._published(name)
        if entry is None:
            return declared
        return {**entry.options, **(declared or {})}

    def _published(self, name: str) -> Entry | None:
        """Look up the registry's entry of a class or actor.

        Raises:
          ConnectionClosed: as :meth:`find`.
        """
        try:
            return self.registry.find(name)
        except LOST as e:
            raise ConnectionClosed(e) from None

    def declared_here(self, name: str) -> Options | None:
        """Look up the options that this process declares, without the registry; None if it declares none."""
        own = self.broker.options_of(name)
        if own is not None:
            return own
        of_class, declared = self.classes.get(name), ruby_job.declared(name, self.broker)
        if of_class is None and declared is None:
            return None
        return {**(declared or {}), **(of_class or {})}

    def with_defaults(self, name: str) -> Options:
        """Merge the options of a class or actor over Sidekiq's defaults."""
        return {**DEFAULTS, **(self.find(name) or {})}

    def of_step(self, node: Wire) -> Options:
        """Merge the options of a step's class over Sidekiq's defaults; warn if its queue is a guess."""
        name = node["class"]
        found = self.find(name)
        if found is not None:
            return {**DEFAULTS, **found}
        if "queue" not in node and name not in self._warned:
            self._warned.add(name)
            self.logger.warning(
                "The class %s is unknown here, so its jobs go to queue %r with Sidekiq's default retries. If its "
                "sidekiq_options differ, declare them: RubyJob(%r, queue=..., retry=...).",
                name,
                DEFAULTS["queue"],
                name,
            )
        return DEFAULTS
