"""Evaluate a network, or ready descriptors, on a benchmark: extraction, post-processing, ranking."""
