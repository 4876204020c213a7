"""The parts of a choice: what is wished, which dtype a GPU takes, what fits it, what it carries, why it was refused."""
