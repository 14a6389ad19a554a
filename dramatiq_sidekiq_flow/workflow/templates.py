"""Named workflows with parameters: the shape is written once, and run many times.

What a run was started with is checked, completed with defaults, and in the
run's memory before its first job exists, so that any step, of either
language, finds it there (the gem's ``Templates``).
"""

from __future__ import annotations

import copy
import functools
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
from .workflow import Workflow

#: Gives a node, a Dramatiq message or a Workflow.  Its one parameter, which it
#: may leave out, gets the params.
Builder = Callable[..., Any]

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
        if self.schema is not None and isinstance(params, self.schema.cls):
            # It is complete.  That its values fit its own annotations is only known after a look.
            given = self.schema.dump(params, "params")
        elif params is None or isinstance(params, Mapping):
            given = {**self.defaults, **(params or {})}
        else:
            wanted = "a mapping" if self.schema is None else f"a {self.schema.cls.__name__} or a mapping"
            raise InvalidInput(
                f"params of the template {self.name!r}: expected {wanted}, not a {type(params).__name__}.", params
            )
        if self.schema is None:
            try:
                codec.check(given, "params")
            except FlowError as e:
                raise InvalidInput(e.message, params) from None
            # The builder may do with its own what it likes.
            return copy.deepcopy(given), given
        loaded = self.schema.load(given, "params")
        return loaded, self.schema.dump(loaded, "params")

    def build(self, params: Any = None, broker: dramatiq.Broker | None = None) -> Workflow:
        """See :meth:`Templates.build`."""
        loaded, seed = self.params(params)
        try:
            node = self.builder(loaded) if self.takes_params else self.builder()
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
        if isinstance(node, Workflow):
            node = node.node
        try:
            return Workflow(node, broker, seed=seed)
        except InvalidWorkflow as e:
            raise InvalidTemplate(f"The builder of the template {self.name!r} gave no workflow. {e}", node) from e


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
        parameter = _parameter(name, builder)
        kind = input if input is not None or parameter is None else _annotation(name, builder, parameter)
        schema = None if kind is None else Schema.of(kind)
        template = Template(name, builder, schema, takes_params=parameter is not None)
        if defaults is not None:
            template = _with(template, *_read(defaults, _folder(builder)))
        with self._lock:
            if name in self._templates:
                raise InvalidTemplate(
                    f"There is a template {name!r} already, by {_place(self._templates[name].builder)}; "
                    f"this one is by {_place(builder)}. Give one of them another name.",
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


def _parameter(name: str, builder: Builder) -> inspect.Parameter | None:
    """The parameter that gets the params; None where there is none."""
    try:
        parameters = [*inspect.signature(builder).parameters.values()]
    except (TypeError, ValueError):
        raise InvalidTemplate(f"The builder of the template {name!r} has no signature to be seen.", builder) from None
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    needed = list(filter(_is_needed, parameters))
    if needed not in ([], positional[:1]):
        raise InvalidTemplate(
            f"The builder of the template {name!r} must take one parameter, the params, or none; "
            f"it takes {', '.join(p.name for p in needed)}.",
            builder,
        )
    return positional[0] if positional else None


def _is_needed(parameter: inspect.Parameter) -> bool:
    """Whether a call must give this parameter."""
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return False
    return parameter.default is parameter.empty


def _annotation(name: str, builder: Builder, parameter: inspect.Parameter) -> type[Any] | None:
    """The class that a parameter asks for; None for any mapping."""
    if parameter.annotation is parameter.empty:
        return None
    function = _function(builder)
    try:
        kind = typing.get_type_hints(function).get(parameter.name, parameter.annotation)
    except Exception as e:
        raise InvalidTemplate(
            f"The annotation {parameter.annotation!r} of the template {name!r} cannot be read here ({e}). "
            "Say input=THE_CLASS.",
            builder,
        ) from None
    origin = typing.get_origin(kind) or kind
    if kind is Any or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return None
    if not isinstance(kind, type) or not attrs.has(kind):
        raise InvalidTemplate(
            f"The params of the template {name!r} must be an attrs class or a mapping, not {kind!r}.", builder
        )
    return kind


def _read(defaults: Defaults, folder: Path) -> tuple[Mapping[str, Any], str]:
    if isinstance(defaults, Mapping):
        return defaults, "defaults"
    return files.load(folder / defaults), str(defaults)


def _with(template: Template, values: Mapping[str, Any], source: str) -> Template:
    """The template with more defaults, if they fit."""
    if template.schema is not None:
        template.schema.check(values, source)
    else:
        try:
            codec.check(dict(values), source)
        except FlowError as e:
            raise InvalidInput(e.message, values) from None
    return attrs.evolve(template, defaults={**template.defaults, **values})


def _function(builder: Builder) -> Callable[..., Any]:
    """The function behind a builder: of a partial, and of an object that can be called."""
    while isinstance(builder, functools.partial):
        builder = builder.func
    return builder if inspect.isroutine(builder) else type(builder).__call__


def _folder(builder: Builder) -> Path:
    """Where a builder's module is; the current folder where it is nowhere (a prompt)."""
    try:
        return Path(inspect.getfile(inspect.unwrap(_function(builder)))).parent
    except (TypeError, OSError):
        return Path()


def _place(builder: Builder) -> str:
    name = getattr(builder, "__qualname__", repr(builder))
    return f"{getattr(builder, '__module__', '?')}.{name}"


#: The templates of this process.
templates = Templates()

#: Registers with :data:`templates`; see :meth:`Templates.template`.
template = templates.template
