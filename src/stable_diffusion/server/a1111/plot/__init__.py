"""A1111's script "X/Y/Z plot": a grid of pictures of one request."""
