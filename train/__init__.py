"""Training: data, losses, loops. Depends on `model`; knows nothing of the command line."""
