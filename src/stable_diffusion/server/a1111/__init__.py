"""The API of A1111's web UI: what its clients send becomes a request, and a finished job the answer that they read."""
