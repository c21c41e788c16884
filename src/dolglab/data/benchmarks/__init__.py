"""Benchmarks beside Revisited and GLDv2, a file each: how its images are listed, and its measure by its own rules."""
