"""What a request must pass before a route sees it (Host, Origin, token, size); what every answer carries."""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taro_rt.engines.errors import TaroError
from taro_rt.runtime.service.refusals import Refusal, refuse
from taro_rt.runtime.service.settings import Settings
from taro_rt.runtime.service.uploads import LARGEST_DOCUMENT, too_large

OPEN = ("/", "/v1/health", "/openapi.json")
"""What tells nothing that is anybody's: without a token."""
FORM_ROOM = 2 * LARGEST_DOCUMENT
"""Of a form beside its video."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Wraps an ASGI application that listens on `port`."""

    def __init__(self, app: ASGIApp, settings: Settings, port: int) -> None:
        self._app, self._token = app, settings.token.encode("ascii")
        self._max_upload = settings.max_upload
        names = {
            "localhost",
            "127.0.0.1",
            "[::1]",
            f"[{settings.host}]" if ":" in settings.host else settings.host,
        }
        self._hosts = {f"{name}:{port}" for name in names} | (names if port == 80 else set())
        self._origins = {f"http://{host}" for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `ASGIApp`."""
        if scope["type"] != "http":  # the server makes no other kind
            raise RuntimeError(f"a scope of type {scope['type']}")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            limit = self._check(scope["path"], Headers(scope=scope))
        except TaroError as error:
            await refuse(error)(scope, receive, send_with_headers)
            return
        await self._app(scope, _limited(receive, limit), send_with_headers)

    def _check(self, path: str, headers: Headers) -> int:
        """How many bytes the body may have. Raises `Refusal`."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            raise Refusal(403, "Host: expected this service's own address; a foreign name may be an attack")
        if any(origin.lower() not in self._origins for origin in origins):
            raise Refusal(403, "Origin: expected this service's own page, got another site")
        if path not in OPEN:
            self._check_token(headers.getlist("authorization"))
        is_form = headers.get("content-type", "").lower().startswith("multipart/")
        limit = self._max_upload + FORM_ROOM if is_form else LARGEST_DOCUMENT
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > limit:
            raise too_large(limit)
        return limit

    def _check_token(self, given: list[str]) -> None:
        scheme, _, token = (given[0] if len(given) == 1 else "").partition(" ")
        right = secrets.compare_digest(token.strip().encode("utf-8", "replace"), self._token)
        if scheme.lower() != "bearer" or not right:
            raise Refusal(401, "expected the header `Authorization: Bearer TOKEN` with the service's token")


def _limited(receive: Receive, limit: int) -> Receive:
    """Whatever a header says or leaves out, no more than `limit` bytes are taken."""
    n_bytes = 0

    async def limited() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > limit:
            raise too_large(limit)
        return message

    return limited
