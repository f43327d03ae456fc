"""A server as it is started: with TLS, with several devices, with folders of files, under load."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import httpx
import psutil
import pytest
from load_server import faults, run
from server_helpers import SMALL, make, port_of, running, settings

from stable_diffusion.errors import StableDiffusionError
from stable_diffusion.server.listen import listen
from stable_diffusion.server.service import devices_of

CLIENTS, SECONDS = 8, 3.0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here, which makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def test_https_and_load(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    """Pictures over TLS; then several clients at once over it, each of whom gets its own pictures and no failure."""
    cert, key = certificate
    with running(settings(tmp_path, tls_cert=cert, tls_key=key, limits={"queue_owner": CLIENTS - 2})) as found:
        address = f"https://127.0.0.1:{port_of(found)}"
        assert found.address.startswith("https://")
        with httpx.Client(base_url=address, verify=ssl.create_default_context(cafile=str(cert)), timeout=60) as http:
            assert http.get("/healthz").status_code == 200
            page = http.get("/", headers={"Origin": address})
            assert page.status_code == 200  # its own origin is https too
            assert make(http)["state"] == "done"
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/healthz")  # nobody signed it
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{address.replace('https', 'http')}/healthz", timeout=5)
        verify = ssl.create_default_context(cafile=str(cert))
        report = asyncio.run(run(address, CLIENTS, SECONDS, psutil.Process().pid, verify))
    assert not faults(report, flat=None), report
    assert report["statuses"].keys() <= {200, 202, 429} and report["pictures"] >= CLIENTS


def test_a_key_that_fits_no_certificate(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, _ = certificate
    with pytest.raises(StableDiffusionError, match="the certificate or its key cannot be used"):
        listen(settings(tmp_path, tls_cert=cert, tls_key=cert))
    with pytest.raises(StableDiffusionError, match="the certificate or its key cannot be used"):
        listen(settings(tmp_path, tls_cert=tmp_path / "nowhere.pem", tls_key=cert))


def test_devices_of_the_setting() -> None:
    assert devices_of("auto") == () and devices_of("cpu") == ("cpu",)
    assert devices_of("cuda:0, cuda:1") == ("cuda:0", "cuda:1")


def test_each_device_has_a_worker(tmp_path: Path) -> None:
    with running(settings(tmp_path, device="cpu,cpu")) as found:
        service = found.app.state.service
        assert len(service.queue.workers) == 2 and len({id(each.models) for each in service.runners}) == 2
        with httpx.Client(base_url=f"http://127.0.0.1:{port_of(found)}", timeout=60) as http:
            jobs = [http.post("/v1/jobs", json={**SMALL, "seed": seed}).json()["id"] for seed in range(4)]
            assert all(service.queue.wait(job, 60).state == "done" for job in jobs)
