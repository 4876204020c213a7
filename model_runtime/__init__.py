"""What runs on the machines: serve, verify, fine-tune. Imports neither infra nor berth."""
