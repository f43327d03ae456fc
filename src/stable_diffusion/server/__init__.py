"""The server: every API over HTTP, and the page. `app.create_app` makes it, `listen.serve` runs it."""
