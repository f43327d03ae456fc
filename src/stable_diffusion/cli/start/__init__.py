"""A process that makes one picture and ends: what it need not wait for."""
