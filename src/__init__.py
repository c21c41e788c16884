"""DOLG landmark retrieval: train, evaluate and use, with PyTorch Lightning and Hydra."""

__version__ = "0.1.0"
