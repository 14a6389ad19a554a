"""Named workflows with parameters: the shape is written once, and run many times.

What a run was started with is checked, completed with defaults, and in the
run's memory before its first job exists, so that any step, of either
language, finds it there (the gem's ``Templates``).
"""

from __future__ import annotations

import copy
import inspect
import threading
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
import dramatiq

from ..errors import FlowError, InvalidInput, InvalidTemplate, InvalidWorkflow, UnknownTemplate
from ..typed.schema import Schema
from ..wire import codec
from . import template_defaults as files
from .template_builder import Builder, folder_of, parameter_of, params_class, place_of
from .workflow import Workflow

B = TypeVar("B", bound=Builder)

#: Where the defaults come from: a YAML file, or the values themselves.
Defaults = typing.Union[str, Path, Mapping[str, Any]]


@attrs.frozen
class Template:
    """A registered template.

    Attributes:
      name: It is run by this name.
      builder: Makes the workflow of the params.
      schema: What the params must be; None for any mapping.
      defaults: For what a run does not say; before the class's own.
      takes_params: Whether the builder has a parameter.
    """

    name: str
    builder: Builder
    schema: Schema | None
    defaults: Mapping[str, Any] = {}
    takes_params: bool = True

    def params(self, params: Any = None) -> tuple[Any, dict[str, Any]]:
        """What the builder gets, and the same as JSON.

        Raises:
          InvalidInput: naming the path of what does not fit.
        """
        given = self._completed(params)
        if self.schema is None:
            _check_json(given, "params", params)
            # The builder may do with its own what it likes.
            return copy.deepcopy(given), given
        loaded = self.schema.load(given, "params")
        return loaded, self.schema.dump(loaded, "params")

    def _completed(self, params: Any) -> dict[str, Any]:
        """The params of a run as JSON; a mapping is completed by the template's defaults."""
        if params is None:
            return {**self.defaults}
        if self.schema is not None and isinstance(params, self.schema.cls):
            # It is complete.  That its values fit its own annotations is only known after a look.
            return dict(self.schema.dump(params, "params"))
        if isinstance(params, Mapping):
            return {**self.defaults, **params}
        wanted = "a mapping" if self.schema is None else f"a {self.schema.cls.__name__} or a mapping"
        raise InvalidInput(
            f"params of the template {self.name!r}: expected {wanted}, not a {type(params).__name__}.", params
        )

    def build(self, params: Any = None, broker: dramatiq.Broker | None = None) -> Workflow:
        """See :meth:`Templates.build`."""
        loaded, seed = self.params(params)
        node = self._call_builder(loaded)
        try:
            return Workflow(node, broker, seed=seed)
        except InvalidWorkflow as e:
            raise InvalidTemplate(f"The builder of the template {self.name!r} gave no workflow. {e}", node) from e

    def _call_builder(self, params: Any) -> Any:
        """The node that the builder gives for these params."""
        try:
            node = self.builder(params) if self.takes_params else self.builder()
        except InvalidWorkflow as e:
            raise InvalidTemplate(f"The builder of the template {self.name!r} gave no workflow. {e}", e.value) from e
        except FlowError:
            raise
        except Exception as e:
            raise InvalidTemplate(
                f"The builder of the template {self.name!r} raised {type(e).__name__}: {e}", params
            ) from e
        if inspect.iscoroutine(node):
            node.close()
            raise InvalidTemplate(
                f"The builder of the template {self.name!r} is async. Build the tree in a plain function.", params
            )
        return node.node if isinstance(node, Workflow) else node


class Templates:
    """A registry of templates.  :data:`templates` is the one of the process."""

    def __init__(self) -> None:
        self._templates: dict[str, Template] = {}
        self._lock = threading.Lock()

    def template(
        self, name: str, *, input: type[Any] | None = None, defaults: Defaults | None = None
    ) -> Callable[[B], B]:
        """Decorator: register a builder, which stays what it is.  See :meth:`register`.

        Examples:

          >>> @template("enrich_and_index", defaults="config/enrich.yml")
          ... def enrich_and_index(params: EnrichParams):
          ...     return Chain(fetch.message(), enrich.message(), index.message())
        """
        if not isinstance(name, str):
            raise InvalidTemplate('A template needs a name: @template("name").', name)

        def decorate(builder: B) -> B:
            self.register(name, builder, input, defaults=defaults)
            return builder

        return decorate

    def register(
        self, name: str, builder: Builder, input: type[Any] | None = None, *, defaults: Defaults | None = None
    ) -> Template:
        """Register a template.

        Parameters:
          name: Not registered before.
          builder: ``params -> node``; called for each run.
          input: The attrs class of the params.  Unless given, the annotation
            of the builder's parameter says it; where that is a mapping, or
            nothing, the params are any mapping.
          defaults: For what a run does not say: a mapping, or a YAML file of
            one, found from the folder of the builder's module.  They are read
            and checked now.

        Raises:
          InvalidTemplate: if the name is taken, or the builder cannot be one.
          InvalidInput: if defaults do not fit; names the path.
          ConfigurationError: if a file cannot be read.
        """
        if not isinstance(name, str) or not name:
            raise InvalidTemplate(f"A template needs a name, not {name!r}.", name)
        if not callable(builder):
            raise InvalidTemplate(f"The template {name!r} needs a function that builds its workflow.", builder)
        template = _template(name, builder, input)
        if defaults is not None:
            template = _with(template, *_read(defaults, folder_of(builder)))
        with self._lock:
            if name in self._templates:
                raise InvalidTemplate(
                    f"There is a template {name!r} already, by {place_of(self._templates[name].builder)}; "
                    f"this one is by {place_of(builder)}. Give one of them another name.",
                    name,
                )
            self._templates[name] = template
        return template

    def load_defaults(self, path: str | Path) -> None:
        """Take the defaults of registered templates from one YAML file: ``{template: {param: value}}``.

        What the file says comes before what ``register(defaults=...)`` said.

        Raises:
          ConfigurationError: for a file that cannot be read.
          UnknownTemplate: for a name in it that is not registered.
          InvalidInput: for values that do not fit, naming the path.
            Nothing of the file counts then.
        """
        loaded = files.load(path)
        with self._lock:
            changed = {}
            for name, values in loaded.items():
                template = self.fetch(name)
                source = f"{path}: {name}"
                if not isinstance(values, dict):
                    raise InvalidInput(f"{source}: a mapping of params is needed, not {values!r:.100}.", values)
                changed[name] = _with(template, values, source)
            self._templates = {**self._templates, **changed}

    def run(
        self, name: str, params: Any = None, *, run_id: str | None = None, broker: dramatiq.Broker | None = None
    ) -> str:
        """Build and start a run.  Where workflows have a memory, the params are in it before the first job is.

        Parameters:
          params: An instance of the template's class, complete as it is; or a
            mapping, completed by the template's defaults, then the class's.
          run_id: As in :meth:`Workflow.run`.

        Returns:
          The run id.

        Raises:
          UnknownTemplate, InvalidInput, InvalidTemplate, InvalidArguments,
          InvalidOptions, ConfigurationError: nothing is enqueued.
        """
        return self.build(name, params, broker=broker).run(run_id)

    def build(self, name: str, params: Any = None, *, broker: dramatiq.Broker | None = None) -> Workflow:
        """The workflow of a run, not started; its ``run()`` puts the params into the memory.  As :meth:`run`."""
        return self.fetch(name).build(params, broker)

    def fetch(self, name: str) -> Template:
        """The template of a name.

        Raises:
          UnknownTemplate: naming those that there are.
        """
        template = self._templates.get(name)
        if template is None:
            known = ", ".join(self.names()) or "none"
            raise UnknownTemplate(
                f"The template {name!r} is not registered; registered are: {known}. Is the module imported that "
                "registers it?",
                name,
            )
        return template

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._templates)

    def clear(self) -> None:
        """Forget all templates.  For tests."""
        with self._lock:
            self._templates = {}


def _template(name: str, builder: Builder, input: type[Any] | None) -> Template:
    """The template of a builder, without defaults."""
    parameter = parameter_of(name, builder)
    if input is None and parameter is not None:
        input = params_class(name, builder, parameter)
    schema = None if input is None else Schema.of(input)
    return Template(name, builder, schema, takes_params=parameter is not None)


def _read(defaults: Defaults, folder: Path) -> tuple[Mapping[str, Any], str]:
    if isinstance(defaults, Mapping):
        return defaults, "defaults"
    return files.load(folder / defaults), str(defaults)


def _with(template: Template, values: Mapping[str, Any], source: str) -> Template:
    """The template with more defaults, if they fit."""
    if template.schema is not None:
        template.schema.check(values, source)
    else:
        _check_json(dict(values), source, values)
    return attrs.evolve(template, defaults={**template.defaults, **values})


def _check_json(values: dict[str, Any], source: str, given: Any) -> None:
    """Check that values are JSON's own.

    Raises:
      InvalidInput: if not; the message names the path, below ``source``, and the error's value is ``given``.
    """
    try:
        codec.check(values, source)
    except FlowError as e:
        raise InvalidInput(e.message, given) from None


#: The templates of this process.
templates = Templates()

#: Registers with :data:`templates`; see :meth:`Templates.template`.
template = templates.template
