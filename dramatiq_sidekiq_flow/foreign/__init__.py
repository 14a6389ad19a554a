"""Workflows whose actors are on another Dramatiq broker: RedisBroker, RabbitmqBroker, StubBroker."""
