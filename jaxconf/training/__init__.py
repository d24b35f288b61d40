"""Small models trained from scratch and measured while they learn."""
