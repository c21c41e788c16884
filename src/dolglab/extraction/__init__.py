"""From images of any size to descriptors."""
