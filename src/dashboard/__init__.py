"""What a run shows on Weights & Biases."""
