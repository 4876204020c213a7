"""What runs, read back: metrics and feedback of a stack, from its account or from the sandbox."""
