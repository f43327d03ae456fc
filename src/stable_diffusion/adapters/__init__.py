"""Small files that change a loaded model: LoRA and its relatives, and new words for the text encoder."""
