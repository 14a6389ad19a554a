"""RubyJob: a declaration of a Ruby job class and its options in Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, Protocol, runtime_checkable

import attrs

from ..errors import ConfigurationError
from ..wire.near_misses import check_names, no_attribute
from ..wire.nodes import Job
from ..wire.option_rules import check_options

#: Options of the classes declared without a broker: class name -> options.
#: They apply to every broker of the process, since most are declared before a broker exists.
_of_process: dict[str, dict[str, Any]] = {}


@runtime_checkable
class Declares(Protocol):
    """A broker that keeps the options of Ruby classes: class name -> options."""

    ruby_jobs: dict[str, dict[str, Any]]


@attrs.frozen(init=False)
class RubyJob:
    """A Ruby job class and its ``sidekiq_options``, declared once.

    Calling it gives a step.  A step that names the class without options
    (``Job("Images::Thumbnail", 7)``, or one that Ruby wrote) gets these, too,
    when Python pushes it.

    Examples:

      >>> Thumbnail = RubyJob("Images::Thumbnail", queue="critical", retry=3)
      >>> Workflow(Chain(Thumbnail(7), Thumbnail(8, queue="low"))).run()

    Parameters:
      job_class: The Ruby constant.
      broker: The SidekiqBroker that the options apply to; by default every
        broker of the process that does not declare others.
      **options: The options of the class's ``sidekiq_options``.

    Raises:
      InvalidOptions: if an option is misspelt or has an invalid value.
      ConfigurationError: if the broker is not a SidekiqBroker.
    """

    job_class: str
    options: dict[str, Any]

    def __init__(self, job_class: str, *, broker: Declares | None = None, **options: Any) -> None:
        check_names(options)
        check_options(options)
        self.__attrs_init__(job_class, options)
        _declarations(broker)[job_class] = options

    def __getattr__(self, name: str) -> NoReturn:
        raise no_attribute("A RubyJob", name, "Call it for a step, and start that: Workflow(TheJob(...)).run().")

    def __call__(self, *args: Any, **options: Any) -> Job:
        """Make a step of a workflow: one job of this class."""
        return Job(self.job_class, *args, **{**self.options, **options})


def declared(job_class: str, broker: Declares) -> Mapping[str, Any] | None:
    """Return the options declared for a Ruby class on a broker; None if it is not declared."""
    own = broker.ruby_jobs.get(job_class)
    return _of_process.get(job_class) if own is None else own


def names(broker: Declares) -> set[str]:
    """List the Ruby classes that are declared on a broker."""
    return {*_of_process, *broker.ruby_jobs}


def _declarations(broker: Declares | None) -> dict[str, dict[str, Any]]:
    if broker is None:
        return _of_process
    if not isinstance(broker, Declares):
        raise ConfigurationError(
            f"{type(broker).__name__} is not a SidekiqBroker. Leave broker= out to apply the options to every "
            "broker of the process.",
            broker,
        )
    return broker.ruby_jobs
