"""A graph of ComfyUI sent to a running server, followed over its WebSocket.

pip install httpx websockets
stable-diffusion serve --port 7860
python examples/clients/comfy_graph.py --port 7860 --out pictures
"""

from __future__ import annotations

import argparse
import json
import uuid
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import connect


def graph_of(prompt: str, size: int, steps: int) -> dict[str, dict[str, Any]]:
    """The graph that ComfyUI begins with."""
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "embedded"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": prompt, "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": size, "height": size, "batch_size": 1}},
        "5": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0],
                "positive": ["2", 0],
                "negative": ["3", 0],
                "latent_image": ["4", 0],
                "seed": 7,
                "steps": steps,
                "cfg": 3.0,
                "sampler_name": "dpmpp_2m",
                "scheduler": "karras",
                "denoise": 1.0,
            },
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "fox"}},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    client = uuid.uuid4().hex
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{given.port}", timeout=60) as http,
        connect(f"ws://127.0.0.1:{given.port}/ws?clientId={client}") as socket,
    ):
        body = {"prompt": graph_of("a fox", given.size, given.steps), "client_id": client}
        answer = http.post("/prompt", json=body)
        if answer.is_error:
            raise SystemExit(answer.json()["error"]["message"])
        prompt_id = answer.json()["prompt_id"]
        while True:
            message = socket.recv()
            if isinstance(message, bytes):  # a preview: 8 bytes, then a JPEG or PNG
                continue
            said = json.loads(message)
            if said["type"] == "progress":
                print(f"step {said['data']['value']} of {said['data']['max']}")
            if said["type"] == "executing" and said["data"]["node"] is None and said["data"]["prompt_id"] == prompt_id:
                break
        shown = http.get(f"/history/{prompt_id}").json()[prompt_id]["outputs"]["7"]["images"][0]
        (given.out / "fox.png").write_bytes(http.get("/view", params=shown).content)


if __name__ == "__main__":
    main()
