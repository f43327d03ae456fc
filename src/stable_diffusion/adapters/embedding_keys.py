"""The tensors of a textual inversion file, in the four layouts that exist."""

from __future__ import annotations

from ..weights.containers.tensors import TensorFile

TWO_ENCODERS = ("clip_l", "clip_g")
A1111 = "string_to_param."


def embedding_tensors(tensors: TensorFile) -> tuple[dict[str, str], str]:
    """(text encoder -> name of its tensor, the word that the file itself uses or an empty text); no encoder where the
    file is no embedding. The encoder is an empty text where the file does not say it.

    A1111: `string_to_param` holds one tensor; others: `emb_params`, one tensor under its token, or `clip_l`/`clip_g`.
    """
    two = {name: name for name in TWO_ENCODERS if _vectors(tensors, name)}
    if two:
        return two, ""
    first = next((name for name in tensors if name.startswith(A1111)), "emb_params")
    if first in tensors:
        return {"": first}, ""
    name = next(iter(tensors), "")
    if len(tensors) == 1 and _vectors(tensors, name) and not name.endswith((".weight", ".bias", ".alpha")):
        return {"": name}, name
    return {}, ""


def _vectors(tensors: TensorFile, name: str) -> bool:
    shape = tensors.shape(name)
    return shape is not None and 1 <= len(shape) <= 2
