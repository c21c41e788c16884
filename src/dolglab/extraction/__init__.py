"""Descriptors and local features of images of any size."""
