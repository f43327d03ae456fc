"""What is asked for: requests, their settings and names. Nothing here needs torch."""
