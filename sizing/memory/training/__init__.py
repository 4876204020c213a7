"""Memory of fine-tuning, per GPU and for the host."""
