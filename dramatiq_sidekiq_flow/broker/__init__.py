"""Payload in, message, acknowledgement out: Dramatiq on a Sidekiq Redis."""

from ..process.cancellation import cancelled
from .broker import SidekiqBroker
from .consumer import SidekiqConsumer
from .message import SidekiqMessage
from .retries import Retries
from .send_many import send_many
from .sent_messages import SentMessages

__all__ = ["Retries", "SentMessages", "SidekiqBroker", "SidekiqConsumer", "SidekiqMessage", "cancelled", "send_many"]
