"""Requests made up from the schema, right and wrong ones: none is answered with a failure of the server.

STABLE_DIFFUSION_FUZZ says how many there are in all; few of them ask a third of the addresses.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed
from hypothesis import settings as hypothesis_settings
from hypothesis.errors import Unsatisfiable
from server_helpers import client, port_of, running, settings

schemathesis = pytest.importorskip("schemathesis")
requests = pytest.importorskip("requests")  # schemathesis calls with it
IN_ALL = int(os.environ.get("STABLE_DIFFUSION_FUZZ", "100"))
ROUNDS = 10
"""How often every operation is asked at most, with other requests each time."""
ENDLESS = ("/v1/events",)
"""Streams that end with the connection alone."""
BLOCKING = ("/sdapi/v1/txt2img", "/sdapi/v1/img2img", "/v1/images/")
"""Addresses that answer when the picture is there: asked where the queue runs, and pictures are tiny or refused."""


@pytest.mark.timeout(3600 if IN_ALL > 1000 else 300)
@pytest.mark.parametrize("blocking", [False, True], ids=["queued", "blocking"])
def test_no_made_up_request_fails_the_server(tmp_path: Path, blocking: bool) -> None:
    """The queue is paused, so that no picture is made; when it is full, the answer is 429."""
    limits = {"failures": 10**6, **({"pixels": 256 * 256, "steps": 2, "count": 1} if blocking else {})}
    chosen = settings(tmp_path, paused=not blocking, limits=limits)
    codes: Counter[int | str] = Counter()
    with running(chosen) as found, client(found) as http:
        schema = schemathesis.openapi.from_dict(http.get("/openapi.json").json())
        operations = [result.ok() for result in schema.get_all_operations()]
        operations = [each for each in operations if each.path not in ENDLESS and not each.path.endswith("/events")]
        operations = [each for each in operations if each.path.startswith(BLOCKING) == blocking]
        operations = operations if IN_ALL > 1000 else operations[::3]
        in_all = IN_ALL if not blocking else IN_ALL // 5
        base = f"http://127.0.0.1:{port_of(found)}"
        for number in range(ROUNDS):  # the simplest operations have few requests that differ
            left = in_all - sum(codes.values())
            for operation in operations if left > 0 else ():
                for mode in schemathesis.GenerationMode:
                    _fuzz(operation, mode, base, codes, -(-left // (2 * len(operations))), number)
                http.post("/v1/queue/resume" if blocking else "/v1/queue/pause")
                http.post("/v1/queue/clear")
        assert http.get("/healthz").status_code == 200
    assert sum(codes.values()) >= in_all * 0.9, codes
    print(codes)


def _fuzz(operation, mode, base: str, codes: Counter[int | str], count: int, number: int) -> None:
    try:
        strategy = operation.as_strategy(generation_mode=mode)
        strategy.validate()
    except Exception:  # an operation without anything that could be wrong
        return

    @seed(number)
    @given(case=strategy)
    @hypothesis_settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def run(case) -> None:
        try:
            answer = case.call(base_url=base, timeout=30)
        except requests.Timeout:  # a machine that was stopped for a while; what blocks does so again
            codes["slow"] += 1
            answer = case.call(base_url=base, timeout=30)
        codes[answer.status_code] += 1
        assert answer.status_code < 500, (case.as_curl_command(), answer.text[:500])
        assert "Traceback" not in answer.text and str(Path.home()) not in answer.text

    with contextlib.suppress(Unsatisfiable):  # where nothing could be wrong
        run()
