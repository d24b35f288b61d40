"""What long work needs: hosts, placement, batches, memory, resuming, timing, progress."""
