"""Headers that each answer has: what a browser may load, and that nothing is kept."""

from __future__ import annotations

from starlette.types import Message, Send

#: Scripts and styles from the two files only; nothing inline, nothing from elsewhere.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

#: Unless an answer says something else.
NOT_KEPT = (b"cache-control", b"no-store")


def with_security(send: Send) -> Send:
    """Add the headers to an answer."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), *HEADERS]
            if not any(name == NOT_KEPT[0] for name, _ in headers):
                headers.append(NOT_KEPT)
            message = {**message, "headers": headers}
        await send(message)

    return sent
