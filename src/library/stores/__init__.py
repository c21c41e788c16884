"""Where a library's descriptors lie, and how they are searched."""
