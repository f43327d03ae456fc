"""The stages of training: autoencoder, text encoder, denoiser, several together, and a few-step student."""
