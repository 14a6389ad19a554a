"""Forms: sent by a page of this application, and by none of another site."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

#: The cookie, and the field of a form that must have the same value.
COOKIE, FIELD = "sidekiq_flow_csrf", "csrf"

#: Bytes of a form.
LONGEST = 16_384

_TOKEN = re.compile(r"[\w-]{43}")


def token_of(request: Request) -> str:
    """The token of a browser, a new one for a new browser."""
    found = request.cookies.get(COOKIE, "")
    return found if _TOKEN.fullmatch(found) else secrets.token_urlsafe(32)


def keep_token(request: Request, response: Response, token: str) -> None:
    """Give the token to the browser: not to scripts, and not to be sent from other sites."""
    if request.cookies.get(COOKIE) != token:
        path = request.scope.get("root_path", "") or "/"
        # A false header harms only the browser that sent it.
        secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
        response.set_cookie(COOKIE, token, path=path, httponly=True, samesite="strict", secure=secure)


async def checked_form(request: Request) -> Mapping[str, str]:
    """Read a form.

    Raises:
      HTTPException: 403 if it was not sent by a page of this application; 413 if it is too long.
    """
    if not is_own(request.headers):
        raise HTTPException(403, "This form was sent from another site.")
    fields = dict(parse_qsl((await _body(request)).decode("utf-8", "replace")))
    known = request.cookies.get(COOKIE, "")
    if not _TOKEN.fullmatch(known) or not hmac.compare_digest(fields.pop(FIELD, "").encode(), known.encode()):
        raise HTTPException(403, "The form does not fit to this browser: load the page again, and repeat.")
    return fields


def is_own(headers: Mapping[str, str]) -> bool:
    """Return False if the browser says that another site sent the request."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST:
            raise HTTPException(413, "The form is too long.")
    return body
