"""Sweeps: each job a process of its own, a table of all of them, and their comparison drawn."""
