"""The part of ComfyUI's API that its clients use: a graph of known nodes becomes one request of this server."""
