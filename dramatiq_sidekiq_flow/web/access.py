"""Who may see the pages: the host's decision, a password, or only this machine."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import inspect
import ipaddress
from collections.abc import Awaitable, Callable, Collection
from typing import Union

import attrs
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response

#: Decides whether a request may see, and steer, the runs; also as a coroutine.
Authorize = Callable[[HTTPConnection], Union[bool, Awaitable[bool]]]

#: Headers that a proxy adds.
_PROXY_HEADERS = frozenset(("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"))

REALM = 'Basic realm="sidekiq-flow", charset="UTF-8"'


@attrs.frozen
class Credentials:
    """A name and a password, which is never printed."""

    username: str
    password: str = attrs.field(repr=False)

    def match(self, header: str) -> bool:
        """Return True if the header ``Authorization`` has both; takes the same time for each wrong one."""
        username, password = _basic(header)
        same_name = _same(username, self.username)
        same_password = _same(password, self.password)
        return same_name and same_password


def _same(one: str, two: str) -> bool:
    return hmac.compare_digest(_hash(one), _hash(two))


def _hash(text: str) -> bytes:
    # Of equal length: the time of the comparison does not tell that of the password.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _basic(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    username, _, password = text.partition(":")
    return username, password


@attrs.frozen
class Access:
    """Rules for each request.

    Parameters:
      authorize: Of the application that this one is mounted in.
      credentials: Asked for with HTTP Basic.
      hosts: The only values of the header ``Host``; empty allows any where there is another rule.

    Without ``authorize`` and credentials, only a browser of this machine is
    answered, and only under a name of this machine: a page of another site,
    whose name leads to 127.0.0.1, is refused.
    """

    authorize: Authorize | None
    credentials: Credentials | None
    hosts: Collection[str]

    async def refusal(self, request: HTTPConnection) -> Response | None:
        """The answer to a request that may not see the pages; None if it may."""
        if not self._is_host_allowed(request):
            return _refused(421, "This name of the server is not allowed: add it to hosts=.")
        if self.credentials and not self.credentials.match(request.headers.get("authorization", "")):
            return PlainTextResponse("Name and password are needed.\n", 401, {"WWW-Authenticate": REALM})
        if self.authorize is not None:
            return None if await _decided(self.authorize(request)) else _refused(403, "You may not see this page.")
        if self.credentials is None and not _is_local(request):
            return _refused(403, "Only this machine may see this page: pass authorize= or credentials=.")
        return None

    def _is_host_allowed(self, request: HTTPConnection) -> bool:
        host = host_of(request)
        if self.hosts:
            return host in self.hosts
        return bool(self.authorize or self.credentials) or is_loopback(host)


async def _decided(answer: bool | Awaitable[bool]) -> bool:
    if inspect.isawaitable(answer):
        answer = await answer
    # Not every true value: a function that returns a response by mistake must not let all in.
    return answer is True


def _refused(status: int, text: str) -> Response:
    return PlainTextResponse(f"{text}\n", status)


def host_of(request: HTTPConnection) -> str:
    """The name in the header ``Host``, without port."""
    host = request.headers.get("host", "").lower()
    name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    return name.rstrip(".")


def is_loopback(host: str) -> bool:
    """Return True if only this machine can have the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_local(request: HTTPConnection) -> bool:
    # A proxy of this machine would make all the world local.  HTTP/1.0 is that of nginx without settings.
    proxied = request.scope["http_version"] == "1.0" or not _PROXY_HEADERS.isdisjoint(request.headers)
    return not proxied and request.client is not None and is_loopback(request.client.host)
