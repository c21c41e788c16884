"""From a benchmark and a network, or anyone's descriptors, to figures: extraction, post-processing, ranking."""
