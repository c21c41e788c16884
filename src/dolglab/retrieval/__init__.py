"""Ranking a gallery for queries, and measuring the ranking."""
