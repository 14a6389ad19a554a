"""Web page of the runs of a broker: an ASGI application."""

try:
    import jinja2
    import starlette
except ModuleNotFoundError as e:
    raise ModuleNotFoundError(
        f"The web page needs {e.name}. Install it: pip install 'dramatiq-sidekiq-flow[web]'", name=e.name
    ) from e

from .access import Authorize
from .runs_app import RunsApp

__all__ = ["Authorize", "RunsApp"]

del jinja2, starlette
