"""sd-backend-client (that of IntraPaint) against a running server: a picture with progress, then a part of it again.

pip install sd-backend-client
stable-diffusion serve --port 7860
python examples/clients/sd_backend_pictures.py --port 7860 --out pictures
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image
from sd_backend_client.api.detect import connect_to_backend
from sd_backend_client.api.webui.diffusion_request_body import DiffusionRequestBody


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    client = connect_to_backend(f"http://127.0.0.1:{given.port}")
    print("samplers:", ", ".join(each.name for each in client.list_samplers()))

    size = given.size
    body = DiffusionRequestBody(prompt="a green hill", steps=given.steps, width=size, height=size, seed=3)
    made = client.submit_txt2img(body).wait(on_progress=lambda now: print(now.status, now.progress))
    made.images[0].save(given.out / "hill.png")

    mask = Image.new("L", (size, size))
    mask.paste(255, (size // 4, size // 4, 3 * size // 4, 3 * size // 4))  # white is generated again
    body.prompt, body.init_images, body.mask = "a house on a green hill", [made.images[0]], mask
    client.submit_inpaint(body).wait().images[0].save(given.out / "house.png")


if __name__ == "__main__":
    main()
