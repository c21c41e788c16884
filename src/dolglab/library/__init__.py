"""A library of one's own photographs: what is in it, their descriptors, and how it is searched."""
