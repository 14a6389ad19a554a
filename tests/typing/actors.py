"""Actors, plain and typed, and the messages that they make."""

from __future__ import annotations

from typing import Any

import attrs
import dramatiq
from typing_extensions import assert_type

from dramatiq_sidekiq_flow import SentMessages, TypedActor, actor, send_many


@attrs.frozen
class Extract:
    doc_id: str
    words: int = 0


@attrs.frozen
class Extracted:
    text: str


@dramatiq.actor(queue_name="python", max_retries=5)
def plain(doc_id: str, words: int = 0) -> Extracted:
    return Extracted(doc_id)


@dramatiq.actor
async def plain_async(doc_id: str) -> str:
    return doc_id


@actor
def bare(input: Extract) -> Extracted:
    return Extracted(input.doc_id)


@actor(actor_name="Docs::Extract", queue_name="python", max_retries=5)
def named(input: Extract) -> Extracted:
    return Extracted(input.doc_id)


@actor
async def bare_async(input: Extract) -> Extracted:
    return Extracted(input.doc_id)


@actor(queue_name="python")
async def named_async(input: Extract) -> Extracted:
    return Extracted(input.doc_id)


@actor(queue_name="python")
def nothing() -> None: ...


@dramatiq.actor(actor_class=TypedActor, queue_name="python")
def by_class(input: Extract) -> Extracted:
    return Extracted(input.doc_id)


assert_type(plain("42"), Extracted)
assert_type(plain.message("42", words=3), dramatiq.Message[Extracted])
assert_type(plain.send("42"), dramatiq.Message[Extracted])
assert_type(plain.send_with_options(args=("42",), delay=1000), dramatiq.Message[Extracted])
assert_type(plain_async.send("42"), dramatiq.Message[str])

assert_type(bare, TypedActor[Extracted])
assert_type(named, TypedActor[Extracted])
assert_type(bare_async, TypedActor[Extracted])
assert_type(named_async, TypedActor[Extracted])
assert_type(nothing, TypedActor[None])

# An instance, keyword arguments, a mapping, or nothing.
assert_type(named(Extract("42")), Extracted)
assert_type(named.message(Extract("42")), dramatiq.Message[Extracted])
assert_type(named.message(doc_id="42"), dramatiq.Message[Extracted])
assert_type(named.message({"doc_id": "42"}), dramatiq.Message[Extracted])
assert_type(named.message(), dramatiq.Message[Extracted])
assert_type(named.send(Extract("42")), dramatiq.Message[Extracted])
assert_type(named.send_with_options(args=(Extract("42"),), delay=1000), dramatiq.Message[Extracted])
assert_type(named_async.message(), dramatiq.Message[Extracted])
assert_type(nothing.send(), dramatiq.Message[None])
assert_type(named.input_schema, dict[str, Any] | None)
assert_type(named.output_schema, dict[str, Any] | None)
assert_type(named.output_fields, frozenset[str] | None)
assert_type(by_class.send(Extract("42")), dramatiq.Message[Extracted])

# Many at once: the method of a typed actor, and the function for any.
assert_type(named.send_many([Extract("42"), {"doc_id": "42"}]), SentMessages[Extracted])
assert_type(send_many(named, [Extract("42")], delay=1000, tags=["t"]), SentMessages[Extracted])
assert_type(send_many(plain_async, [("42",)]), SentMessages[str])
assert_type(send_many(plain, [("42", 1)])[0], dramatiq.Message[Extracted])
assert_type(send_many(plain_async, iter([("42",)]))[0].get_result(), str)
assert_type(send_many(plain_async, [("42",)]).message_ids[0], str)
