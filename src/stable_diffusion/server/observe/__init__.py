"""What the server says of itself: its log, and numbers for monitoring."""
