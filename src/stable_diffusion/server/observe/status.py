"""The status of an answer, for whoever counts or logs requests around an application."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from ..guard import Send


class StatusSeen:
    """Hands an answer's messages on, and keeps its status; `status` is what it is until one comes."""

    def __init__(self, send: Send, status: int) -> None:
        self._send, self.status = send, status

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        self.status = message.get("status", self.status)
        await self._send(message)
