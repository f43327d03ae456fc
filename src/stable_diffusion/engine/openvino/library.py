"""OpenVINO itself, which is imported when the first network is converted, and says nothing of that to anybody."""

from __future__ import annotations

import sys
from typing import Any


def openvino() -> Any:
    """The library. Its telemetry stays out: it would start a process and connect to the network at every conversion."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # an import of it fails, as is provided for
    import openvino as library

    return library
