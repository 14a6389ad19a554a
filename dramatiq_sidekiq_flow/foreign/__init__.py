"""Workflows of actors on another Dramatiq broker: RedisBroker, RabbitmqBroker, StubBroker."""
