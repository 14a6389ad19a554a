"""Payload in, message, acknowledgement out: Dramatiq on a Sidekiq Redis."""

from .broker import SidekiqBroker
from .cancellation import cancelled
from .consumer import SidekiqConsumer
from .message import SidekiqMessage
from .retries import Retries

__all__ = ["Retries", "SidekiqBroker", "SidekiqConsumer", "SidekiqMessage", "cancelled"]
