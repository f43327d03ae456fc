"""What people look at in a browser: static files, and what serves or exports them without a server of ours running."""
