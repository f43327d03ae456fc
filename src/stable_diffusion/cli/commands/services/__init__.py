"""Commands that serve others or work through a queue: the server, bulk work, the 360° viewer."""
