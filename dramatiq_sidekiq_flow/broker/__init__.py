"""Payload in, message, acknowledgement out: Dramatiq on a Sidekiq Redis."""

from ..process.cancellation import cancelled
from .broker import SidekiqBroker
from .consumer import SidekiqConsumer
from .message import SidekiqMessage
from .retries import Retries

__all__ = ["Retries", "SidekiqBroker", "SidekiqConsumer", "SidekiqMessage", "cancelled"]
