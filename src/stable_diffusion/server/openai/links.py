"""Addresses of pictures that need no token: whoever was given one can open it, and nobody can make one up.

Clients hand them on to a browser or to another server, which knows no token.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from ..errors import ApiError
from ..service import Service
from .encoding import BEST
from .fields import ImageFields

SECRET = "openai picture key"
"""Of the key among the settings that outlive the server."""
PLACE = "/v1/images/files"
DIGITS = 32


class Links:
    """Makes and checks the addresses of one server's pictures."""

    def __init__(self, service: Service) -> None:
        found = service.queue.settings.get(SECRET)
        if not isinstance(found, str):
            found = secrets.token_hex(32)
            service.queue.settings.set(SECRET, found)
        self._key = bytes.fromhex(found)

    def sign(self, picture_id: str) -> str:
        return hmac.new(self._key, picture_id.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:DIGITS]

    def path(self, picture_id: str, fields: ImageFields) -> str:
        """The address of a picture on this server."""
        quality = fields.output_compression
        end = "" if fields.output_format == "png" or quality == BEST else f"?quality={quality}"
        return f"{PLACE}/{self.sign(picture_id)}/{picture_id}.{fields.output_format}{end}"

    def check(self, picture_id: str, signature: str) -> None:
        """ApiError 404 unless the address was made by this server."""
        if not hmac.compare_digest(self.sign(picture_id), signature.encode("ascii", "replace").decode("ascii")):
            raise ApiError(404, "there is no such picture", code="not_found")
