"""Prepare data on disk before training: download, verify, unpack."""
