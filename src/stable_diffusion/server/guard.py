"""The first thing a request meets: who may ask at all. Works on HTTP and WebSockets alike, before anything is read.

Host            exactly one, a name of this server (DNS rebinding)
Origin          absent, ours, or one of `allow_origins`; "null" never (a hostile page, a sandboxed frame)
Sec-Fetch-Site  cross-site and same-site only where the origin is allowed, or a person follows a link to the page
token           where one is set: Bearer, Basic or the page's cookie
CORS            headers for allowed origins alone, and never "*"
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import Response

from .auth import Tokens
from .errors import ApiError, Errors
from .settings import LOOPBACK, ServerSettings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CSP = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self' ws: wss:; "
    "style-src 'self'; script-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "form-action 'self'"
)
"""What a page of ours may load: nothing from elsewhere, no inline script, no inline style."""
SECURITY_HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), xr-spatial-tracking=(self)",
}
PAGES = ("/", "/docs", "/live", "/view")
"""Where a link from another site may lead a person: nothing is done there."""
OPEN = ("/healthz", "/readyz", "/v1/session", "/sw.js", "/manifest.webmanifest", "/favicon.ico", *PAGES)
"""Addresses that need no token: they hold no secret and do nothing."""
GIVEN = "/v1/images/files/"
"""How addresses begin that only who was given one knows: browsers open them without a token, on pages of others too."""
METHODS = "GET, POST, PUT, DELETE, HEAD"
HEADERS = "authorization, content-type, idempotency-key, last-event-id"


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: App, settings: ServerSettings, tokens: Tokens, errors: Errors) -> None:
        self.app, self.settings, self.tokens, self.errors = app, settings, tokens, errors
        own = settings.host if ":" not in settings.host else f"[{settings.host.strip('[]')}]"
        anywhere = own in ("0.0.0.0", "[::]")
        self.hosts = {name.lower() for name in (*LOOPBACK, *settings.hosts, *(() if anywhere else (own,)))}
        self.allowed = {origin.lower() for origin in settings.allow_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = _headers(scope)
        origin = self._cors(headers)
        try:
            self._check(scope, headers)
        except ApiError as error:
            await self._refuse(scope, receive, send, error, origin)
            return
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        if origin is not None and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await Response(status_code=204)(scope, receive, _with_headers(send, self._answers(origin, preflight=True)))
            return
        await self.app(scope, receive, _with_headers(send, self._answers(origin)))

    def _check(self, scope: Scope, headers: dict[str, list[str]]) -> None:
        """ApiError where the request may not pass."""
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._is_ours(hosts[0], scope):
            raise ApiError(403, "this server is not called by that name; see the setting hosts", code="host")
        origins = headers.get("origin", [])
        allowed = len(origins) == 1 and origins[0].lower() in self.allowed
        if origins and not allowed and not (len(origins) == 1 and self._is_same(origins[0], hosts[0], scope)):
            raise ApiError(403, "pages of another origin may not call this server", code="origin")
        site = headers.get("sec-fetch-site", ["none"])[-1].lower()
        if site not in ("none", "same-origin") and not allowed and not _is_visit(scope, headers):
            raise ApiError(403, "pages of another site may not call this server", code="origin")
        preflight = scope.get("method") == "OPTIONS" and allowed and "access-control-request-method" in headers
        if not preflight and not self._is_open(scope):
            self.tokens.check(headers, _address(scope))

    def _is_ours(self, host: str, scope: Scope) -> bool:
        """Whether a Host header names this server: a known name, and the port that it was reached at."""
        name, port = _split_host(host.strip().lower(), _default_port(scope))
        server = scope.get("server")
        own_port = server[1] if server else self.settings.port
        if name not in self.hosts:
            return False
        # Behind a proxy or a mapped port the configured names come with the port of the outside.
        return port == own_port or name in {each.lower() for each in self.settings.hosts}

    def _is_same(self, origin: str, host: str, scope: Scope) -> bool:
        """Whether an Origin is the page of this server at the name by which it was called."""
        scheme, sign, rest = origin.lower().partition("://")
        if not sign or scheme not in ("http", "https"):
            return False
        default = 443 if scheme == "https" else 80
        return _split_host(rest, default) == _split_host(host.strip().lower(), default)

    def _is_open(self, scope: Scope) -> bool:
        path = scope["path"]
        known = path in OPEN or path.startswith(("/static/", GIVEN))
        return scope["type"] == "http" and known and _is_address_alone(scope)

    def _cors(self, headers: dict[str, list[str]]) -> str | None:
        """The origin that is answered with CORS headers, where it is in the list."""
        origins = headers.get("origin", [])
        return origins[0] if len(origins) == 1 and origins[0].lower() in self.allowed else None

    def _answers(self, origin: str | None, preflight: bool = False) -> dict[str, str]:
        """Headers of every answer."""
        found = dict(SECURITY_HEADERS)
        if origin is not None:
            found |= {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
            found["Cross-Origin-Resource-Policy"] = "cross-origin"
            if preflight:
                found |= {"Access-Control-Allow-Methods": METHODS, "Access-Control-Allow-Headers": HEADERS}
                found["Access-Control-Max-Age"] = "600"
        return found

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, error: ApiError, origin: str | None) -> None:
        """A refused WebSocket is closed before it is accepted, which a browser sees as 403."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = self.errors.answer(scope["path"], error)
        await answer(scope, receive, _with_headers(send, self._answers(origin)))


def _headers(scope: Scope) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _is_visit(scope: Scope, headers: dict[str, list[str]]) -> bool:
    """A person follows a link, and a page is opened in the window itself; or a picture is shown whose address was
    given."""
    if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and scope["path"].startswith(GIVEN):
        return True
    return (
        scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
        and scope["path"] in PAGES
        and _is_address_alone(scope)
        and headers.get("sec-fetch-mode") == ["navigate"]
        and headers.get("sec-fetch-dest") == ["document"]
    )


def _is_address_alone(scope: Scope) -> bool:
    """Whether nothing is asked of a page: /view with the name of a picture shows that picture, as in ComfyUI."""
    return scope["path"] != "/view" or not scope.get("query_string")


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "socket"


def _default_port(scope: Scope) -> int:
    return 443 if scope.get("scheme") in ("https", "wss") else 80


def _split_host(host: str, default: int) -> tuple[str, int]:
    """ "name:port" as both; a port that is none is -1, which no server has."""
    if host.startswith("["):
        name, _, rest = host.partition("]")
        name, port = name + "]", rest.removeprefix(":")
        if rest and not rest.startswith(":"):
            return host, -1
    else:
        name, sign, port = host.partition(":")
        if sign and not port:
            return host, -1
    if not port:
        return name, default
    return name, int(port) if port.isascii() and port.isdigit() and len(port) < 6 else -1


def _with_headers(send: Send, headers: dict[str, str]) -> Send:
    """Sends with headers where an answer has not set them itself."""

    async def sent(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            known = {name.lower() for name, _ in message.get("headers", [])}
            more = [(k.lower().encode(), v.encode()) for k, v in headers.items() if k.lower().encode() not in known]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await send(message)

    return sent
