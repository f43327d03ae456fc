"""From a request to pictures.

request.py   what is asked for, checked; the events that a run yields
model.py     a loaded model and `load`; its parts are usable alone
codec.py     pictures to latents and back                 process.py   the forward chain and the way back
generate.py  txt2img, img2img and inpainting as a stream of events; `generate_image`
image.py     Pillow pictures to tensors and back          metadata.py  the `parameters` text inside picture files
"""
