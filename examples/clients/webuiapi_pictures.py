"""webuiapi against a running server: a picture, another one made of it, and the settings that it carries.

pip install webuiapi
stable-diffusion serve --port 7860
python examples/clients/webuiapi_pictures.py --port 7860 --out pictures
"""

from __future__ import annotations

import argparse
import base64
from pathlib import Path

import webuiapi


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    api = webuiapi.WebUIApi(host="127.0.0.1", port=given.port)
    print("models:", ", ".join(api.util_get_model_names()))

    size = {"width": given.size, "height": given.size, "steps": given.steps, "seed": 7}
    kite = api.txt2img(prompt="a red kite", sampler_name="DPM++ 2M", cfg_scale=3, **size)
    # `image` is decoded; the file itself, with its settings inside, is in the answer as base64.
    (given.out / "kite.png").write_bytes(base64.b64decode(kite.json["images"][0]))

    snow = api.img2img(images=[kite.image], prompt="a red kite in snow", denoising_strength=0.6, cfg_scale=3, **size)
    (given.out / "snow.png").write_bytes(base64.b64decode(snow.json["images"][0]))
    print(api.png_info(kite.image).info)


if __name__ == "__main__":
    main()
