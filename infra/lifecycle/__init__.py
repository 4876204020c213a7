"""The life of a stack: brought up, extended, looked at, taken down; over Pulumi's engine or the sandbox's walk."""
