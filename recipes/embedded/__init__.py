"""The embedded model: its data, its training plan and its packing."""
