"""What entropy neurons, induction heads and calibration do when text repeats."""
