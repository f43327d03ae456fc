"""The model inside a notebook: a widget with prompt, settings, live preview and history."""
