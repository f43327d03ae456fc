"""The networks, one architecture per file: U-Net, variational autoencoder, CLIP text encoder, image tower."""
