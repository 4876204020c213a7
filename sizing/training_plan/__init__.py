"""Fine-tuning planned: which method, machine and settings, how long, what it costs, and the files that run it."""
