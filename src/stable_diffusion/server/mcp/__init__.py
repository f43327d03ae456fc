"""The Model Context Protocol: assistants make and change pictures by tools, through the queue of the server."""
