"""Bytes to named tensors: safetensors, GGUF and torch's pickles, read without believing or running any of it."""
