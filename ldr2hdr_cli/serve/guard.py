"""Who may talk to the server: a token, and pages of other sites that a browser here may show."""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/", "/healthz")
"""What needs no token: the page, which asks for it, and whether the server lives."""

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


def is_loopback(host: str) -> bool:
    """An address or name that only this machine can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """An ASGI application around another one, which it shows only what may pass.

    Without a token the server listens on this machine alone, and a browser there is the way in: a page of another site
    may send requests to it, and a name that its owner points to 127.0.0.1 makes the two one site (DNS rebinding). So
    the name in Host must be this machine's, and Origin must be Host's.
    """

    def __init__(self, app: App, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        refusal = self._refusal(scope["path"], Headers(scope=scope))
        answer: App = self._app if refusal is None else refusal
        await answer(scope, receive, send_with_headers)

    def _refusal(self, path: str, headers: Headers) -> App | None:
        host = headers.get("host", "")
        if self._token is None and not is_loopback(_without_port(host)):
            return _answer(
                403, "Without a token the server answers to 127.0.0.1 and localhost alone: use that address."
            )
        origin = headers.get("origin")
        is_foreign = headers.get("sec-fetch-site") == "cross-site" and path != "/"  # a link to the page may be anywhere
        if is_foreign or (origin is not None and origin.partition("://")[2] != host):
            return _answer(403, "A page of another site may not use this server: open the server's own page.")
        if self._token is None or path in OPEN or self._knows_token(headers.get("authorization", "")):
            return None
        return _answer(401, "Give the server's token, as Authorization: Bearer TOKEN.", {"WWW-Authenticate": "Bearer"})

    def _knows_token(self, authorization: str) -> bool:
        kind, _, given = authorization.partition(" ")
        right = hmac.compare_digest(given.strip().encode(), (self._token or "").encode())
        return right and kind.lower() == "bearer"


def _without_port(host: str) -> str:
    """ "localhost:8000" → "localhost"; "[::1]:8000" → "::1"."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _answer(status: int, sentence: str, headers: dict[str, str] | None = None) -> App:
    return JSONResponse({"detail": sentence}, status, headers)
