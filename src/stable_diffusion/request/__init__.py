"""What is asked for: settings checked in plain sentences, written into pictures and read back. Nothing here imports torch."""
