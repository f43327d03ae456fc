"""The server's own API: jobs, events, gallery, capabilities, pictures given, and the live picture."""
