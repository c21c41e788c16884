"""The Lightning modules, schedules, callbacks and checkpoints of a run."""
