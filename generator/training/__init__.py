"""Training of nano's networks: data, losses, loops and their command line."""
