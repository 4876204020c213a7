"""Memory on the device and on the host: inference, training, loading."""
