"""Points a service at a fine-tuned model: finds and verifies the artifact, records it, shows what changes by it."""
