"""OpenAI's client against a running server: a picture that forms, and a part of it again.

pip install openai
stable-diffusion serve --port 7860
python examples/clients/openai_pictures.py --port 7860 --out pictures
"""

from __future__ import annotations

import argparse
import base64
import io
from pathlib import Path

from openai import OpenAI
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    client = OpenAI(base_url=f"http://127.0.0.1:{given.port}/v1", api_key="any")
    print("models:", ", ".join(model.id for model in client.models.list()))

    size = f"{given.size}x{given.size}"
    more = {"seed": 7, "num_inference_steps": given.steps}  # not OpenAI's fields
    events = client.images.generate(prompt="a lake", size=size, stream=True, partial_images=2, extra_body=more)
    for event in events:
        final = event.type == "image_generation.completed"
        name = "lake.png" if final else f"lake-{event.partial_image_index}.png"
        (given.out / name).write_bytes(base64.b64decode(event.b64_json))

    mask = Image.new("RGBA", (given.size, given.size), "black")
    mask.paste((0, 0, 0, 0), (given.size // 4, given.size // 2, 3 * given.size // 4, given.size))  # this is edited
    file = io.BytesIO()
    mask.save(file, "PNG")
    made = client.images.edit(
        image=(given.out / "lake.png").open("rb"), mask=file.getvalue(), prompt="a boat on a lake", extra_body=more
    )
    (given.out / "boat.png").write_bytes(base64.b64decode(made.data[0].b64_json))
    print("also at", made.data[0].url)


if __name__ == "__main__":
    main()
