"""The images API of OpenAI: what its clients send becomes a request of this server, and the answer is in its shape."""
