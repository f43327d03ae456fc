"""A panorama's page on this computer alone: a small server at 127.0.0.1 with a dozen addresses, none of them a path.

It answers GET and HEAD only, and only where `Host` names this computer, so that no page of another site reaches it by
a name of its own (DNS rebinding).
"""

from __future__ import annotations

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .viewer_page import STATIC, STYLE, Panorama, served_page

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), xr-spatial-tracking=(self)",
    "Cache-Control": "no-store",
}
SCRIPTS = ("vendor/three.js", *(f"panorama/{path.name}" for path in sorted((STATIC / "panorama").glob("*.js"))))

Content = dict[str, tuple[str, bytes]]
"""Address -> media type and body."""


def page_content(panorama: Panorama) -> Content:
    """All that the page's server answers."""
    found: Content = {
        "/": ("text/html; charset=utf-8", served_page(panorama).encode()),
        "/view.css": ("text/css; charset=utf-8", STYLE.encode()),
        "/picture": (panorama.picture.media_type, panorama.picture.data),
    }
    if panorama.depth is not None:
        found["/depth"] = (panorama.depth.media_type, panorama.depth.data)
    for name in SCRIPTS:
        found[f"/{name}"] = ("text/javascript; charset=utf-8", (STATIC / name).read_bytes())
    return found


class PageServer(ThreadingHTTPServer):
    """Serves a panorama at 127.0.0.1 and this port (0: a free one) from `serve_forever` until `shutdown`.

    OSError where the port is taken.
    """

    daemon_threads = True

    def __init__(self, panorama: Panorama, port: int = 0) -> None:
        self.content = page_content(panorama)
        super().__init__(("127.0.0.1", port), PageHandler)

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://127.0.0.1:{self.server_port}/"


class PageHandler(BaseHTTPRequestHandler):
    """Answers from the server's content."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    timeout = 30
    server_version = "stable-diffusion"
    sys_version = ""

    def do_GET(self) -> None:
        """The page and its files."""
        hosts = self.headers.get_all("Host", [])
        port = self.server.server_port
        if hosts not in ([f"127.0.0.1:{port}"], [f"localhost:{port}"]):
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"this page is for this computer alone\n")
            return
        found = self.server.content.get(self.path.split("?")[0])
        if found is None:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"there is nothing here\n")
            return
        self._answer(HTTPStatus.OK, *found)

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self.do_GET()

    def _answer(self, status: HTTPStatus, media_type: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the terminal is the user's."""
