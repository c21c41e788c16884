"""The commands, a file each, and what they share: configurations, messages, run folders, what builds the parts."""
