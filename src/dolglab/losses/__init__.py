"""Margin losses over an L2-normalised prediction head."""
