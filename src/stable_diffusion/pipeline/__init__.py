"""From a request to pictures, down only: generate -> prepare -> resolve, prompts, tasks; then denoiser, codec.

generate.py   `generate`: the stream of events, and `generate_image`
prepare.py    a request on a model made ready once: `Plan`            resolve.py   every setting known: `Resolved`
denoiser.py   the chain from a network to what a sampler asks          prompts.py   styles, choices, encoding
loras.py      adapters of a request                                    attention.py where words act in a picture
models.py     `StableDiffusion`, `ModelCache`, `load`                  cache.py     what is kept in memory
process.py    from noise to a latent, usable alone                   codec.py     pictures to latents and back
image.py      Pillow pictures to tensors and back                      grid.py      sheets of pictures
renamed.py    names of the last release
text.py       the text encoder of a model                              tasks/       what a request may ask beyond text
"""

from ..former import FOLDER

__path__ = [*__path__, str(FOLDER / "pipeline")]
