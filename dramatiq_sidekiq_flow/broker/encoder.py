"""Refuses an encoder of the application's own."""

from __future__ import annotations

import dramatiq
from dramatiq.middleware import MiddlewareError

from ..errors import ConfigurationError


class EncoderIgnored(ConfigurationError, MiddlewareError):
    """Dramatiq's encoder was replaced, and is not used.  As a MiddlewareError it also stops a worker from starting."""


def check_encoder() -> None:
    """Check that Dramatiq's encoder is its JSONEncoder.

    Raises:
      EncoderIgnored: if the application has set another one.
    """
    encoder = dramatiq.get_encoder()
    if type(encoder) is not dramatiq.JSONEncoder:
        raise EncoderIgnored(
            f"dramatiq.set_encoder({type(encoder).__name__}()) has no effect on a SidekiqBroker: a job is JSON "
            "that Ruby reads, too, so what the encoder hides would stand in Redis in the clear. Remove "
            "set_encoder(), and encrypt single arguments in the application.",
            encoder,
        )
