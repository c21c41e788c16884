"""Models as others get them: a folder with its card, ONNX, the Hugging Face hub, and networks by name."""
