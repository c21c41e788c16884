"""Adaptive search over settings: an Optuna study whose trials are trainings in processes of their own."""
