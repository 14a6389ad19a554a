"""Ruby's job classes, as Python knows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import attrs

from ..wire.near_misses import check_names, no_attribute
from ..wire.nodes import Job
from ..wire.option_rules import check_options

#: What was said of Ruby classes in this process: class name -> options.
_declared: dict[str, dict[str, Any]] = {}


@attrs.frozen(init=False)
class RubyJob:
    """A Ruby job class and its ``sidekiq_options``, said once.

    Calling it gives a step.  A step that names the class without options
    (``Job("Images::Thumbnail", 7)``, or one that Ruby wrote) gets these, too,
    when Python pushes it.

    Examples:

      >>> Thumbnail = RubyJob("Images::Thumbnail", queue="critical", retry=3)
      >>> Workflow(Chain(Thumbnail(7), Thumbnail(8, queue="low"))).run()

    Parameters:
      job_class: The Ruby constant.
      **options: As in the class's ``sidekiq_options``.
    """

    job_class: str
    options: dict[str, Any]

    def __init__(self, job_class: str, **options: Any) -> None:
        check_names(options)
        check_options(options)
        self.__attrs_init__(job_class, options)
        _declared[job_class] = options

    def __getattr__(self, name: str) -> NoReturn:
        raise no_attribute("A RubyJob", name, "Call it for a step, and start that: Workflow(TheJob(...)).run().")

    def __call__(self, *args: Any, **options: Any) -> Job:
        """A step of a workflow: one job of this class."""
        return Job(self.job_class, *args, **{**self.options, **options})


def declared(job_class: str) -> Mapping[str, Any] | None:
    """The options said of a Ruby class in this process."""
    return _declared.get(job_class)


def names() -> set[str]:
    """The Ruby classes of which anything was said in this process."""
    return set(_declared)
