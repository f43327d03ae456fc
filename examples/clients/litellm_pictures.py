"""litellm against a running server: a picture, and another one made of it.

LITELLM_LOCAL_MODEL_COST_MAP=True keeps litellm from asking the internet for a list of prices.

pip install litellm
stable-diffusion serve --port 7860
python examples/clients/litellm_pictures.py --port 7860 --out pictures
"""

from __future__ import annotations

import argparse
import base64
from pathlib import Path

import litellm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    server = {"api_base": f"http://127.0.0.1:{given.port}/v1", "api_key": "any"}

    # `openai/` says which API the server has; what follows is the model's name in the server's list.
    size = f"{given.size}x{given.size}"
    # `extra_body` holds what is not OpenAI's: seed, steps, guidance.
    extra = {"seed": 7, "num_inference_steps": given.steps}
    kite = litellm.image_generation("a red kite", model="openai/embedded", size=size, extra_body=extra, **server)
    (given.out / "kite.png").write_bytes(base64.b64decode(kite.data[0].b64_json))

    with (given.out / "kite.png").open("rb") as file:
        snow = litellm.image_edit(
            image=file, prompt="a red kite in snow", model="openai/gpt-image-1", size=size, **server
        )
    (given.out / "snow.png").write_bytes(base64.b64decode(snow.data[0].b64_json))


if __name__ == "__main__":
    main()
