"""A library of photos: its catalogue, the descriptors, and search."""
