"""Graphs become requests, and their pictures are those of these; what cannot is a fault that names the node."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
from comfy_graphs import Graph, advanced_graph, hires_graph, lora_graph, node, picture_graph, text_graph
from PIL import Image
from served import FAST, Served, picture, png

from stable_diffusion import generate_image
from stable_diffusion.images import save_image


def result(server: Served, graph: Graph, **more: Any) -> dict[str, Any]:
    """The entry of a graph in the history once it is over."""
    answer = server.post("/prompt", {"prompt": graph, **more})
    assert answer.status_code == 200, answer.text
    prompt_id = answer.json()["prompt_id"]
    server.wait(lambda: server.get(f"/history/{prompt_id}").json())
    return server.get(f"/history/{prompt_id}").json()[prompt_id]


def files(server: Served, entry: dict[str, Any]) -> list[bytes]:
    assert entry["status"]["status_str"] == "success", entry["status"]
    shown = [server.get("/view", params=each) for out in entry["outputs"].values() for each in out["images"]]
    assert all(each.headers["content-type"] == "image/png" for each in shown)
    return [each.content for each in shown]


def request_of(server: Served) -> dict[str, Any]:
    """The request of the newest job."""
    return server.get("/v1/jobs").json()["jobs"][0]["request"]


def test_a_graph_gives_the_bytes_of_the_command_line(server: Served, tmp_path: Path) -> None:
    graph = text_graph("a red kite")
    graph["5"]["inputs"]["batch_size"] = 2
    graph["30"] = node("PreviewImage", images=["8", 0])
    found = result(server, graph)
    assert set(found["outputs"]) == {"9", "30"} and found["outputs"]["9"] == found["outputs"]["30"]
    for number, data in enumerate(files(server, found)[:2]):
        settings = {"steps": 2, "width": 64, "height": 64, "sampler": "euler", "schedule": "normal", "guidance": 1}
        image = generate_image("a red kite", model=FAST, seed=7 + number, **settings)
        assert data == save_image(image, tmp_path / f"{number}.png").read_bytes()


def test_a_picture_and_its_mask(server: Served) -> None:
    start = picture()
    upload = server.http.post("/upload/image", files={"image": ("../a disc.png", png(start), "image/png")})
    assert upload.json() == {"name": "a disc.png", "subfolder": "", "type": "input"}
    files(server, result(server, picture_graph("a disc.png")))
    found = request_of(server)
    assert (found["steps"], found["strength"]) == (4, 0.5), "ComfyUI makes all its steps"
    clear = start.convert("RGBA")
    clear.paste((0, 0, 0, 0), (16, 16, 48, 48))
    fields = {"original_ref": json.dumps({"filename": "a disc.png", "type": "input"}), "type": "input"}
    mask = server.http.post("/api/upload/mask", files={"image": ("m.png", png(clear), "image/png")}, data=fields)
    data = files(server, result(server, picture_graph(mask.json()["name"], masked=True, denoise=1.0)))[0]
    made = Image.open(io.BytesIO(data)).convert("RGB")
    assert made.crop((0, 0, 64, 8)).tobytes() == start.crop((0, 0, 64, 8)).tobytes()
    assert made.crop((16, 16, 48, 48)).tobytes() != start.crop((16, 16, 48, 48)).tobytes()


def test_names_of_uploads(server: Served) -> None:
    def sent(image: Image.Image, **fields: str) -> str:
        file = {"image": ("start.png", png(image), "image/png")}
        return server.http.post("/upload/image", files=file, data=fields).json()["name"]

    assert sent(picture()) == sent(picture()) == "start.png"
    assert sent(picture((32, 32))) == "start (1).png"
    assert sent(picture((32, 32)), overwrite="true") == "start.png"
    assert "start (1).png" in server.get("/object_info/LoadImage").json()["LoadImage"]["input"]["required"]["image"][0]
    shown = server.get("/view", params={"filename": "start.png", "type": "input"})
    assert shown.headers["content-type"] == "image/png"
    webp = server.get("/view", params={"filename": "start.png", "preview": "webp;50", "type": "input"})
    assert webp.content[8:12] == b"WEBP"


def test_hires_loras_and_layers(server: Served) -> None:
    files(server, result(server, hires_graph()))
    wanted = {"scale": 1.5, "steps": 4, "strength": 0.5, "upscaler": "Latent (nearest-exact)"}
    assert request_of(server)["hires"] == wanted
    files(server, result(server, hires_graph(width=128, height=128)))
    assert request_of(server)["hires"] == {"steps": 4, "strength": 0.5, "upscaler": "Latent"}, "2 x is the default"
    with_lora = files(server, result(server, lora_graph()))
    found = request_of(server)
    assert found["loras"] == [{"name": "ink", "strength": 0.8, "text_strength": 0.5}] and found["clip_skip"] == 2
    assert with_lora != files(server, result(server, lora_graph(0.0)))


def test_advanced_samplers(server: Served) -> None:
    assert files(server, result(server, advanced_graph())) == files(server, result(server, text_graph()))
    graph = advanced_graph(end=1)
    graph["3"]["inputs"]["return_with_leftover_noise"] = "enable"
    graph["14"] = copy.deepcopy(graph["3"])
    graph["14"]["inputs"] |= {
        "add_noise": "disable",
        "start_at_step": 1,
        "end_at_step": 10_000,
        "latent_image": ["3", 0],
    }
    graph["15"] = node("CheckpointLoaderSimple", ckpt_name="embedded")
    graph["14"]["inputs"]["model"] = ["15", 0]
    graph["8"]["inputs"]["samples"] = ["14", 0]
    files(server, result(server, graph))
    assert request_of(server)["refiner"] == {"model": "embedded", "switch": 0.5}


def test_comfy_reads_prompts_otherwise(server: Served) -> None:
    found = result(server, text_graph("(red:1.2) [apple] {a|b} embedding:none.pt, x"))
    files(server, found)
    request = request_of(server)
    assert request["prompt"] == r"(red:1.2) \[apple\] {a\|b} none, x"
    assert request["prompting"] == {"emphasis": "ComfyUI", "variants": False}


def changed(change: Any) -> Graph:
    graph = text_graph()
    change(graph)
    return graph


FAULTS: list[tuple[Any, str, str]] = [
    (lambda g: g.update({"11": node("FaceDetailer")}), "missing_node_type", "FaceDetailer"),
    (lambda g: g.update({"11": node("UNETLoader", unet_name="x")}), "missing_node_type", "UNETLoader"),
    (lambda g: g.pop("9"), "prompt_no_outputs", "SaveImage"),
    (lambda g: g["3"]["inputs"].pop("model"), "required_input_missing", "model"),
    (lambda g: g["3"]["inputs"].update(steps=0), "value_smaller_than_min", "steps"),
    (lambda g: g["3"]["inputs"].update(cfg=1000), "value_bigger_than_max", "cfg"),
    (lambda g: g["3"]["inputs"].update(seed="many"), "invalid_input_type", "seed"),
    (lambda g: g["3"]["inputs"].update(sampler_name="eule"), "value_not_in_list", "euler"),
    (lambda g: g["3"]["inputs"].update(model=["6", 0]), "return_type_mismatch", "MODEL"),
    (lambda g: g["3"]["inputs"].update(model=["99", 0]), "value_not_in_list", "99"),
    (lambda g: g["4"]["inputs"].update(ckpt_name="../../x"), "value_not_in_list", "model"),
    (lambda g: g["4"]["inputs"].update(ckpt_name="embeded"), "value_not_in_list", "embedded"),
    (lambda g: g["5"]["inputs"].update(batch_size=4000), "custom_validation_failed", "count"),
    (lambda g: g["5"]["inputs"].update(width=63), "custom_validation_failed", "64x64"),
    (lambda g: g["6"]["inputs"].update(text="<lora:inc:1>"), "custom_validation_failed", "'ink'"),
    (lambda g: g["3"]["inputs"].update(latent_image=["3", 0]), "dependency_cycle", "itself"),
    (lambda g: g["6"].pop("class_type"), "invalid_prompt", "class_type"),
]


@pytest.mark.parametrize(("change", "kind", "words"), FAULTS)
def test_faults_name_the_node(server: Served, change: Any, kind: str, words: str) -> None:
    before = len(server.service.queue.jobs())
    answer = server.post("/prompt", {"prompt": changed(change)})
    assert answer.status_code == 400, answer.text
    found = answer.json()
    assert {"type", "message", "details", "extra_info"} <= set(found["error"]) and isinstance(
        found["node_errors"], dict
    )
    kinds = [found["error"]["type"], *(e["type"] for n in found["node_errors"].values() for e in n["errors"])]
    assert kind in kinds and words in found["error"]["message"]
    assert len(server.service.queue.jobs()) == before


def test_bodies_that_are_none(server: Served) -> None:
    for body in (
        b"",
        b"[]",
        b"{",
        b'{"prompt": []}',
        b'{"prompt": {"1": 2}}',
        b'{"prompt": {"1": {"class_type": []}}}',
    ):
        answer = server.http.post("/prompt", content=body)
        assert answer.status_code == 400 and answer.json()["error"]["message"]
    for path in ("/queue", "/interrupt", "/history"):
        assert server.http.post(path, content=b'{"delete": 3, "prompt_id": {}}').status_code == 200
        assert server.http.post(path).status_code == 200
    assert server.http.post("/upload/image", data={"image": "text"}).status_code == 400
    assert server.http.post("/upload/image", files={"image": ("a.svg", b"<svg/>")}).status_code == 400
    for name in ("../../etc/passwd", "%2e%2e", "x" * 250, "0-0.png", ""):
        assert server.get("/view", params={"filename": name}).status_code == 404
