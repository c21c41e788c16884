"""Cards as tables: what they say, and how each medium shows it."""
