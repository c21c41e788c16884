"""What a person can have done with a library: one file for each command, and what they share."""
