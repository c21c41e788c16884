"""Sweeps: jobs in processes of their own, a table of all jobs, and a chart of their comparison."""
