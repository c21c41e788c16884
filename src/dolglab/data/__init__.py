"""Images: sources, decoding, sampling, augmentation and batches."""
