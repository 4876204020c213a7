"""What stacks are made of: one component resource a file, each with a typed args dataclass."""
