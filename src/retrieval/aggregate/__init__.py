"""Local features of an image made into something that can be searched for."""
