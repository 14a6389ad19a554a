"""Templates: named workflows with parameters, defined once and run many times.

The params of a run are checked, completed with defaults, and written to the
run's memory before its first job exists, so that any step, of either language,
can read them (the gem's ``Templates``).
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

#: Default params: the path of a YAML file, or the values.
Defaults = typing.Union[str, Path, Mapping[str, Any]]


@attrs.frozen
class Template:
    """A registered template.

    Attributes:
      name: Name to run it by.
      builder: Function that makes the workflow from the params.
      schema: Schema of the params; None for any mapping.
      defaults: Values of params that a run does not set; they take precedence
        over the defaults of the attrs class.
      takes_params: True if the builder has a parameter.
    """

    name: str
    builder: Builder
    schema: Schema | None
    defaults: Mapping[str, Any] = {}
    takes_params: bool = True

    def params(self, params: Any = None) -> tuple[Any, dict[str, Any]]:
        """Check and complete the params of a run; return them for the builder, and as JSON for the memory.

        Raises:
          InvalidInput: if a param does not fit; the message names its path.
        """
        given = self._completed(params)
        if self.schema is None:
            _check_json(given, "params", params)
            # A copy, since the builder may change it.
            return copy.deepcopy(given), given
        loaded = self.schema.load(given, "params")
        return loaded, self.schema.dump(loaded, "params")

    def _completed(self, params: Any) -> dict[str, Any]:
        """Convert the params of a run to JSON; complete a mapping with the template's defaults."""
        if params is None:
            return {**self.defaults}
        if self.schema is not None and isinstance(params, self.schema.cls):
            # Complete already, but only dump and load check its values against the annotations.
            return dict(self.schema.dump(params, "params"))
        if isinstance(params, Mapping):
            return {**self.defaults, **params}
        wanted = "a mapping" if self.schema is None else f"a {self.schema.cls.__name__} or a mapping"
        raise InvalidInput(
            f"params of the template {self.name!r}: expected {wanted}, not a {type(params).__name__}.", params
        )

    def build(self, params: Any = None, broker: dramatiq.Broker | None = None) -> Workflow:
        """Build the workflow of a run; see :meth:`Templates.build`."""
        loaded, seed = self.params(params)
        made = self._call_builder(loaded)
        node, options = _parts(made)
        try:
            workflow = Workflow(node, broker, seed=seed, **options)
        except InvalidWorkflow as e:
            raise InvalidTemplate(f"The builder of the template {self.name!r} returned no workflow. {e}", node) from e
        workflow.template = self.name
        return workflow

    def _call_builder(self, params: Any) -> Any:
        """Call the builder; return its node, or its workflow.

        Raises:
          InvalidTemplate: if the builder raises or is async.
        """
        try:
            node = self.builder(params) if self.takes_params else self.builder()
        except InvalidWorkflow as e:
            raise InvalidTemplate(
                f"The builder of the template {self.name!r} returned no workflow. {e}", e.value
            ) from e
        except FlowError:
            raise
        except Exception as e:
            raise InvalidTemplate(
                f"The builder of the template {self.name!r} raised {type(e).__name__}: {e}", params
            ) from e
        if inspect.iscoroutine(node):
            node.close()
            raise InvalidTemplate(
                f"The builder of the template {self.name!r} is async. Build the tree in a function without async.",
                params,
            )
        return node


class Templates:
    """Registry of templates.  :data:`templates` is the registry of the process."""

    def __init__(self) -> None:
        self._templates: dict[str, Template] = {}
        self._lock = threading.Lock()

    def template(
        self, name: str, *, input: type[Any] | None = None, defaults: Defaults | None = None
    ) -> Callable[[B], B]:
        """Decorate a builder: register it, and return it unchanged.  See :meth:`register`.

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
          name: A name that is not registered yet.
          builder: ``params -> node``; called for each run.
          input: The attrs class of the params.  By default the annotation of
            the builder's parameter; if that is a mapping or missing, the params
            are any mapping.
          defaults: Values of params that a run does not set: a mapping, or the
            path of a YAML file that holds one, relative to the folder of the
            builder's module.  They are read and checked now.

        Raises:
          InvalidTemplate: if the name is taken, or the builder is invalid.
          InvalidInput: if a default does not fit; the message names its path.
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
                    f"The template {name!r} is registered already, by {place_of(self._templates[name].builder)}, and "
                    f"now by {place_of(builder)}. Give one of them another name.",
                    name,
                )
            self._templates[name] = template
        return template

    def load_defaults(self, path: str | Path) -> None:
        """Read the defaults of registered templates from one YAML file: ``{template: {param: value}}``.

        They take precedence over ``register(defaults=...)``.  After an error,
        no value of the file is used.

        Raises:
          ConfigurationError: if the file cannot be read.
          UnknownTemplate: if the file names a template that is not registered.
          InvalidInput: if a value does not fit; the message names its path.
        """
        loaded = files.load(path)
        with self._lock:
            changed = {}
            for name, values in loaded.items():
                template = self.fetch(name)
                source = f"{path}: {name}"
                if not isinstance(values, dict):
                    raise InvalidInput(f"{source}: expected a mapping of params, not {values!r:.100}.", values)
                changed[name] = _with(template, values, source)
            self._templates = {**self._templates, **changed}

    def run(
        self, name: str, params: Any = None, *, run_id: str | None = None, broker: dramatiq.Broker | None = None
    ) -> str:
        """Build and start a run.  If workflows have a memory, the params are in it before the first job exists.

        Parameters:
          params: An instance of the template's class, which is used as it is;
            or a mapping, which is completed with the template's defaults, then
            with those of the class.
          run_id: As in :meth:`Workflow.run`.

        Returns:
          The run id.

        Raises:
          UnknownTemplate, InvalidInput, InvalidTemplate, InvalidArguments,
          InvalidOptions, ConfigurationError: if the run cannot be built; nothing
            is enqueued.
        """
        return self.build(name, params, broker=broker).run(run_id)

    def build(self, name: str, params: Any = None, *, broker: dramatiq.Broker | None = None) -> Workflow:
        """Build the workflow of a run as :meth:`run`, but do not start it; its ``run()`` seeds the memory."""
        return self.fetch(name).build(params, broker)

    def fetch(self, name: str) -> Template:
        """Look up a template by its name.

        Raises:
          UnknownTemplate: if no template has the name; the message lists the registered names.
        """
        template = self._templates.get(name)
        if template is None:
            known = ", ".join(self.names()) or "none"
            raise UnknownTemplate(
                f"The template {name!r} is not registered; registered are: {known}. Import the module that "
                "registers it first.",
                name,
            )
        return template

    def names(self) -> list[str]:
        """List the names of all templates, sorted."""
        return sorted(self._templates)

    def clear(self) -> None:
        """Remove all templates.  For tests."""
        with self._lock:
            self._templates = {}


def _template(name: str, builder: Builder, input: type[Any] | None) -> Template:
    """Make the template of a builder, without defaults."""
    parameter = parameter_of(name, builder)
    if input is None and parameter is not None:
        input = params_class(name, builder, parameter)
    schema = None if input is None else Schema.of(input)
    return Template(name, builder, schema, takes_params=parameter is not None)


def _parts(made: Any) -> tuple[Any, dict[str, Any]]:
    """Split what a builder returned into a node and the options of a workflow."""
    if not isinstance(made, Workflow):
        return made, {}
    # Its tree has on_success already.
    options = attrs.evolve(made.options, on_success=None)
    return made.node, {"tags": made.tags, **options.given}


def _read(defaults: Defaults, folder: Path) -> tuple[Mapping[str, Any], str]:
    if isinstance(defaults, Mapping):
        return defaults, "defaults"
    return files.load(folder / defaults), str(defaults)


def _with(template: Template, values: Mapping[str, Any], source: str) -> Template:
    """Add defaults to a copy of a template, after a check.

    Raises:
      InvalidInput: if a value does not fit.
    """
    if template.schema is not None:
        template.schema.check(values, source)
    else:
        _check_json(dict(values), source, values)
    return attrs.evolve(template, defaults={**template.defaults, **values})


def _check_json(values: dict[str, Any], source: str, given: Any) -> None:
    """Check that JSON can carry values exactly.

    Raises:
      InvalidInput: if not; the message names the path below ``source``, and the error's value is ``given``.
    """
    try:
        codec.check(values, source)
    except FlowError as e:
        raise InvalidInput(e.message, given) from None


#: Registry of this process.
templates = Templates()

#: Decorator that registers with :data:`templates`; see :meth:`Templates.template`.
template = templates.template
