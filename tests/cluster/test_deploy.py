"""What starts a cluster elsewhere: readable, agreeing with the code, and open to nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from house import ROOT
from stable_diffusion.cluster.settings import read_cluster_settings
from stable_diffusion.server.settings import read_settings

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
DEPLOY = ROOT / "deploy"


def documents() -> list[dict[str, Any]]:
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    return [each for path in files for each in yaml.safe_load_all(path.read_text())]


def test_one_file_sets_up_the_server_and_the_cluster() -> None:
    path, secret = DEPLOY / "server.toml", {"STABLE_DIFFUSION_SERVER_TOKEN": "a long secret"}
    assert read_settings(path, secret, {}).limits.queue == 1024
    assert read_cluster_settings(path, {}).store == Path("/models/by-hash")


def test_only_the_server_is_published() -> None:
    found = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    ports = {name: service.get("ports", []) for name, service in found["services"].items()}
    assert ports == {"head": [], "replicas": [], "server": ["127.0.0.1:7860:7860"]}
    assert found["networks"]["ray"]["internal"] is True
    assert all("ray" in service["networks"] for service in found["services"].values())
    assert all(service["environment"]["RAY_AUTH_MODE"] == "token" for service in found["services"].values())


def test_kubernetes_lets_only_the_cluster_reach_ray() -> None:
    kinds = {(each["kind"], each["metadata"]["name"]): each for each in documents()}
    policy = kinds["NetworkPolicy", "stable-diffusion-ray"]["spec"]
    (cluster,) = (each for each in documents() if each["kind"] == "RayCluster")
    assert policy["podSelector"]["matchLabels"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert all("ports" not in rule or "from" in rule for rule in policy["ingress"])
    server = kinds["Deployment", "stable-diffusion-server"]["spec"]["template"]
    service = kinds["Service", "stable-diffusion"]["spec"]
    assert service["selector"].items() <= server["metadata"]["labels"].items()
    claims = {each["metadata"]["name"] for each in documents() if each["kind"] == "PersistentVolumeClaim"}
    pods = [server["spec"], *(group["template"]["spec"] for group in cluster["spec"]["workerGroupSpecs"])]
    used = {
        each["persistentVolumeClaim"]["claimName"]
        for pod in pods
        for each in pod["volumes"]
        if "persistent" in str(each)
    }
    assert used == claims


def test_kubernetes_asks_only_what_plain_ray_answers() -> None:
    """KubeRay's own probes ask the dashboard's agent; its autoscaler is a container of its own, and needs the token."""
    (cluster,) = (each for each in documents() if each["kind"] == "RayCluster")
    spec = cluster["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for group, port in zip(groups, (6379, 6380), strict=True):
        (container,) = group["template"]["spec"]["containers"]
        assert {container[f"{kind}Probe"]["tcpSocket"]["port"] for kind in ("readiness", "liveness")} == {port}
        assert container["env"] == spec["autoscalerOptions"]["env"]
    assert spec["workerGroupSpecs"][0]["rayStartParams"]["node-manager-port"] == "6380"


def test_the_images_user_may_write_where_it_writes() -> None:
    kinds = {each["kind"]: each for each in documents()}
    image = (DEPLOY / "Containerfile").read_text()
    assert (
        "--uid 1000" in image and kinds["Deployment"]["spec"]["template"]["spec"]["securityContext"]["fsGroup"] == 1000
    )
    (replicas,) = kinds["RayCluster"]["spec"]["workerGroupSpecs"]
    (first,) = replicas["template"]["spec"]["initContainers"]
    assert first["command"] == ["chown", "1000:1000", "/cache"] and first["securityContext"]["runAsUser"] == 0
