"""What steering a model along neuron sets and directions does to its calibration: `jaxconf steer`."""
