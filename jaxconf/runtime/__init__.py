"""What long jobs need: hosts, placement, batches, memory, resuming, timing, progress."""
