"""Lookup of a broker by its name, ``app:broker``."""

from __future__ import annotations

import importlib
import os
import sys
from functools import reduce
from typing import Any

import dramatiq

from ..broker import SidekiqBroker
from ..errors import ConfigurationError, FlowError
from ..workflow.engine_lookup import engine_of


def find_broker(name: str) -> SidekiqBroker:
    """Find a broker by name, as the ``dramatiq`` command does.

    For another broker, finds the SidekiqBroker of its WorkflowMiddleware.

    Raises:
      ConfigurationError: if there is none.
    """
    sys.path.insert(0, os.getcwd())
    try:
        found = _load(name)
    except FlowError:
        raise
    except Exception as e:
        # Any error of the application's import.
        raise ConfigurationError(f"{name} cannot be loaded: {type(e).__name__}: {e}", name) from e
    if isinstance(found, dramatiq.Broker) and not isinstance(found, SidekiqBroker):
        found = engine_of(found).broker
    if not isinstance(found, SidekiqBroker):
        raise ConfigurationError(f"{name} is a {type(found).__name__}, not a SidekiqBroker.", name)
    return found


def _load(name: str) -> Any:
    """Import a module, and find a broker in it; a function is called, and sets the global broker."""
    module_name, _, attribute = name.partition(":")
    module = importlib.import_module(module_name)
    if not attribute:
        return dramatiq.get_broker()
    found = reduce(_attribute, attribute.split("."), module)
    if isinstance(found, dramatiq.Actor):
        raise ConfigurationError(f"{name} is an actor. Name its broker, or only the module: {module_name}.", name)
    if callable(found) and not isinstance(found, dramatiq.Broker):
        found()
        return dramatiq.get_broker()
    return found


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name)
    except AttributeError:
        raise ConfigurationError(f"{getattr(value, '__name__', value)!r} has no {name!r}.", name) from None
