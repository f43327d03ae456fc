"""From a sentence to what the denoiser is given: tokens, weights, conditioning.

tokenizer.py  text to token ids (CLIP's vocabulary ships with the package; other vocabularies come with their model)
prompt.py     the weighting syntax `(word:1.3)`, `[word]`, `BREAK`, as pure functions on strings
t5_tokenizer.py  T5's vocabulary from a model's folder
encode.py     prompts to `Conditioning`: chunks of one context window, weights, clip skip, and what was left out
"""
