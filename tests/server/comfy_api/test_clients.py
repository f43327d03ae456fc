"""What SillyTavern, Open WebUI and scripts ask of ComfyUI, in their order, of a real server."""

from __future__ import annotations

import base64
import json
import struct
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from comfy_graphs import advanced_graph, text_graph
from served import FAST, Served, opened, served
from server_helpers import TOKEN

sync = pytest.importorskip("websockets.sync.client")
STEPS = {"steps": 40, "sampler_name": "euler"}


def socket_of(server: Served, client: str, **options: Any) -> Any:
    return sync.connect(f"{server.address.replace('http', 'ws')}/ws?clientId={client}", **options)


def until_over(socket: Any, prompt_id: str) -> list[Any]:
    """Everything that the socket says of a graph, to its end."""
    found: list[Any] = []
    while True:
        message = socket.recv(timeout=60)
        found.append(message if isinstance(message, bytes) else json.loads(message))
        data = {} if isinstance(message, bytes) else found[-1]["data"]
        if data.get("prompt_id") == prompt_id and data.get("node", "") is None:
            return found


def test_sillytavern(server: Served) -> None:
    """Its server's address ends in /comfy; a prompt is sent as text, and the whole history is asked for its end."""
    base = "/comfy"
    assert server.get(f"{base}/system_stats").status_code == 200
    info = server.get(f"{base}/object_info").json()
    required = {name: info[name]["input"]["required"] for name in info}
    assert {"euler", "dpmpp_2m"} <= set(required["KSampler"]["sampler_name"][0])
    assert {"normal", "karras"} <= set(required["KSampler"]["scheduler"][0])
    assert FAST in required["CheckpointLoaderSimple"]["ckpt_name"][0] and required["UNETLoader"]["unet_name"][0] == []
    assert required["VAELoader"]["vae_name"][0] == ["Automatic"]
    body = json.dumps({"prompt": text_graph()})
    sent = server.http.post(f"{base}/prompt", content=body, headers={"content-type": "text/plain;charset=UTF-8"})
    prompt_id = sent.json()["prompt_id"]
    server.wait(lambda: prompt_id in server.get(f"{base}/history").json())
    item = server.get(f"{base}/history").json()[prompt_id]
    assert item["status"]["status_str"] == "success"
    image = next(iter(item["outputs"].values()))["images"][0]
    query = f"filename={image['filename']}&subfolder={image['subfolder']}&type={image['type']}"
    assert server.get(f"{base}/view?{query}").content.startswith(b"\x89PNG")


def test_a_failed_graph_says_why_to_sillytavern(server: Served) -> None:
    server.service.queue.pause()
    prompt_id = server.post("/prompt", {"prompt": text_graph(**STEPS)}).json()["prompt_id"]
    assert [each[1] for each in server.get("/queue").json()["queue_pending"]] == [prompt_id]
    assert server.get(f"/history/{prompt_id}").json() == {}, "nothing until it is over"
    assert server.get("/prompt").json()["exec_info"]["queue_remaining"] == 1
    server.post("/queue", {"delete": [prompt_id]})
    server.service.queue.resume()
    found = server.get(f"/history/{prompt_id}").json()[prompt_id]
    assert found["status"]["status_str"] == "error" and found["outputs"] == {}
    assert found["status"]["messages"][-1][0] == "execution_interrupted"
    server.post("/history", {"delete": [prompt_id]})
    assert server.get(f"/history/{prompt_id}").json() == {}


def test_open_webui(server: Served) -> None:
    """Its socket is open before the prompt is sent; what it reads is in the history."""
    graph = text_graph(steps=4)
    with socket_of(server, "webui", additional_headers={"Authorization": "Bearer none"}) as socket:
        headers = {"User-Agent": "Mozilla/5.0", "Authorization": "Bearer none"}
        answer = server.post("/prompt", {"prompt": graph, "client_id": "webui"}, headers=headers).json()
        said = until_over(socket, answer["prompt_id"])
    history = server.get(f"/history/{answer['prompt_id']}").json()[answer["prompt_id"]]
    images = [each for key in history["outputs"] for each in history["outputs"][key]["images"]]
    assert graph["9"]["class_type"] == "SaveImage" and set(history["outputs"]) == {"9"}
    assert server.get("/view", params=images[0]).status_code == 200
    kinds = [each["type"] for each in said if not isinstance(each, bytes)]
    wanted = ["status", "execution_start", "execution_cached", "executing", "progress", "executed", "execution_success"]
    assert list(dict.fromkeys(kinds)) == wanted, "in this order"
    assert said[0]["data"]["sid"] == "webui"
    progress = [each["data"] for each in said if not isinstance(each, bytes) and each["type"] == "progress"]
    assert [each["value"] for each in progress] == [1, 2, 3, 4] and {each["max"] for each in progress} == {4}
    executed = next(each["data"] for each in said if not isinstance(each, bytes) and each["type"] == "executed")
    assert executed["node"] == "9" and executed["output"]["images"] == images
    frames = [each for each in said if isinstance(each, bytes)]
    assert frames and struct.unpack(">II", frames[0][:8])[0] == 1
    kind = struct.unpack(">II", frames[0][:8])[1]
    assert opened(base64.b64encode(frames[0][8:]).decode()).format == {1: "JPEG", 2: "PNG"}[kind]


def test_each_client_hears_of_its_own_graphs(server: Served) -> None:
    heard: dict[str, list[Any]] = {}

    def run(client: str) -> None:
        with socket_of(server, client) as socket:
            prompt_id = server.post("/prompt", {"prompt": text_graph(client), "client_id": client}).json()["prompt_id"]
            said = until_over(socket, prompt_id)
            heard[client] = [
                each["data"].get("prompt_id", prompt_id) == prompt_id for each in said if isinstance(each, dict)
            ]

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert len(heard) == 2 and all(all(each) for each in heard.values())


def test_interrupt(server: Served) -> None:
    with socket_of(server, "stopper") as socket:
        graph = advanced_graph()
        graph["3"]["inputs"]["steps"] = 150
        graph["5"]["inputs"] |= {"width": 128, "height": 128}
        prompt_id = server.post("/prompt", {"prompt": graph, "client_id": "stopper"}).json()["prompt_id"]
        while json.loads(socket.recv(timeout=30))["type"] != "execution_start":
            pass
        assert server.http.post("/interrupt").status_code == 200
        said = [each for each in until_over(socket, prompt_id) if isinstance(each, dict)]
    assert "execution_interrupted" in [each["type"] for each in said]


def test_lists(server: Served) -> None:
    assert server.get("/models").json()[0] == "checkpoints" and FAST in server.get("/models/checkpoints").json()
    assert server.get("/models/loras").json() == ["ink.safetensors"] and server.get("/models/nope").status_code == 404
    assert server.get("/embeddings").json() == [] == server.get("/extensions").json()
    assert server.get("/features").json()["supports_preview_metadata"] is False
    assert set(server.get("/api/object_info/KSampler").json()) == {"KSampler"}
    assert server.get("/object_info/FaceDetailer").json() == {}
    assert server.http.post("/free", json={"unload_models": True, "free_memory": True}).status_code == 200
    assert server.get("/system_stats").status_code == 404, "so that it is not taken for ComfyUI alone"


def test_the_address_of_the_page_and_of_pictures_is_one(tmp_path: Path) -> None:
    """Without a token the page opens, and no picture does."""
    with served(tmp_path, token=TOKEN) as server:
        assert server.get("/view").headers["content-type"].startswith("text/html")
        assert server.get("/view", params={"filename": "0-0.png"}).status_code == 401
        assert httpx.get(f"{server.address}/object_info").json()["error"]["type"] == "unauthorized"
        with pytest.raises(Exception, match="403"), socket_of(server, "x"):
            pass
        with socket_of(server, "x", additional_headers={"Authorization": f"Bearer {TOKEN}"}) as socket:
            assert json.loads(socket.recv(timeout=10))["type"] == "status"
