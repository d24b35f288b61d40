"""Many analyses on a shared folder, and what they will need."""
