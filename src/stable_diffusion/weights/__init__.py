"""Model files: reading them safely, saying what they are, loading them strictly, and writing our own format."""
