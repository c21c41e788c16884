"""Sharing of models: a folder with its card, ONNX, the Hugging Face hub, and networks by name."""
