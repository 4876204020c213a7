"""Fine-tuning: settings and plan in, a verified artifact out; interruptions and full memory are part of the way."""
