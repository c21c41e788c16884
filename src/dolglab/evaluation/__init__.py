"""Evaluate a network, or existing descriptors, on a benchmark: extraction, post-processing, ranking."""
