"""Bricks of the networks: attention, convolution blocks and embeddings; they need torch and nothing else."""
