"""The networks: transformer, autoencoder and their parts."""
