"""The token: who has it may use the server. Bearer and Basic for programs, a cookie for the page; never in a URL."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

from fastapi import Depends, Request
from fastapi.requests import HTTPConnection
from starlette.requests import cookie_parser

from .errors import ApiError

COOKIE = "stable_diffusion_session"
MOST_ADDRESSES = 10_000
"""Addresses whose failures are remembered."""
WINDOW = 60.0
"""Seconds in which failures are counted."""
LOCAL = "local"
"""Who owns the jobs that come over a socket without an address."""
CHALLENGE = {"WWW-Authenticate": 'Basic realm="stable-diffusion", charset="UTF-8"'}


class Tokens:
    """Checks what clients give against the one token; an empty token lets everybody pass."""

    def __init__(self, token: str, failures: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._token, self._most, self._clock = token.encode(), failures, clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()
        # The cookie is not the token itself, so that a stolen cookie is no password elsewhere.
        self.session = hmac.new(self._token, b"session", hashlib.sha256).hexdigest()

    @property
    def required(self) -> bool:
        return bool(self._token)

    def check(self, headers: Mapping[str, Sequence[str]], address: str) -> None:
        """ApiError 401 without a right token, 429 after too many wrong ones of an address."""
        if not self.required:
            return
        given = [value for value in headers.get("authorization", ()) if value.strip()]
        if not given and self._has_cookie(headers):
            return
        if not given:
            raise ApiError(401, "this server needs a token; give it as a Bearer token", headers=CHALLENGE)
        self.check_text(_candidates(given[0]) if len(given) == 1 else [], address)

    def passes(self, connection: HTTPConnection) -> bool:
        """Whether a client has shown the token; a wrong one counts as everywhere."""
        headers = {name: connection.headers.getlist(name) for name in ("authorization", "cookie")}
        if not self.required or (not any(headers["authorization"]) and self._has_cookie(headers)):
            return True
        if not any(headers["authorization"]):
            return False
        try:
            self.check(headers, connection.client.host if connection.client else LOCAL)
        except ApiError:
            return False
        return True

    def check_text(self, candidates: Sequence[bytes], address: str) -> None:
        """ApiError unless one of the candidates is the token."""
        wait = self._wait(address)
        if wait:
            sentence = "too many wrong tokens came from this address; try again in a minute"
            raise ApiError(429, sentence, headers={"Retry-After": str(wait)})
        # All are compared, so that the time says nothing of which was right.
        right = [hmac.compare_digest(each, self._token) for each in candidates]
        if any(right):
            return
        self._failed(address)
        raise ApiError(401, "the token is wrong", headers=CHALLENGE)

    def _has_cookie(self, headers: Mapping[str, Sequence[str]]) -> bool:
        for line in headers.get("cookie", ()):
            value = cookie_parser(line).get(COOKIE)
            if value is not None and hmac.compare_digest(value.encode(), self.session.encode()):
                return True
        return False

    def _wait(self, address: str) -> int:
        """Seconds until an address may try again; 0 is now."""
        with self._lock:
            times = self._failures.get(address)
            while times and self._clock() - times[0] > WINDOW:
                times.popleft()
            if not times or len(times) < self._most:
                return 0
            return max(1, math.ceil(WINDOW - (self._clock() - times[0])))

    def _failed(self, address: str) -> None:
        with self._lock:
            self._failures.setdefault(address, deque(maxlen=self._most)).append(self._clock())
            self._failures.move_to_end(address)
            while len(self._failures) > MOST_ADDRESSES:
                self._failures.popitem(last=False)


def _candidates(value: str) -> list[bytes]:
    """What may be the token in an Authorization header: of Bearer all, of Basic the password, or the user's name
    where the password is empty."""
    scheme, _, rest = value.strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return [rest.encode("latin-1", "replace")]
    if scheme.lower() != "basic":
        return []
    try:
        name, sign, password = base64.b64decode(rest, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return []
    return [password or name, b":".join((name, password))] if sign else [name]


async def owner(connection: HTTPConnection) -> str:
    """Whose turn a client's jobs take: each address has its own, so that none fills the queue alone. Everybody who may
    use the server sees all jobs."""
    return connection.client.host if connection.client else LOCAL


async def check_session(request: Request, token: str) -> None:
    """ApiError unless `token` is right; for the page's form."""
    tokens: Tokens = request.app.state.tokens
    address = request.client.host if request.client else "socket"
    if tokens.required:
        tokens.check_text([token.encode("utf-8", "replace")], address)


OwnerIs = Annotated[str, Depends(owner)]
