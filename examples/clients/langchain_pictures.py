"""LangChain's tool for pictures against a running server: it gives an address, as an agent would hand it on.

pip install langchain-community openai
stable-diffusion serve --port 7860
python examples/clients/langchain_pictures.py --port 7860 --out pictures
"""

from __future__ import annotations

import argparse
import urllib.request
from pathlib import Path

from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    parser.add_argument("--size", type=int, default=256)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    wrapper = DallEAPIWrapper(
        base_url=f"http://127.0.0.1:{given.port}/v1",
        api_key="any",
        model="dall-e-3",  # any such name means the server's own model
        size=f"{given.size}x{given.size}",
    )
    address = wrapper.run("a red kite")
    print(address)
    with urllib.request.urlopen(address) as answer:
        (given.out / "kite.png").write_bytes(answer.read())


if __name__ == "__main__":
    main()
