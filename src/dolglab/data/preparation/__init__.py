"""Data on disk before training: fetched, verified, unpacked."""
