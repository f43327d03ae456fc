"""What runs the networks: the seam (`base`) and the engine that every feature runs on (`torch`)."""
