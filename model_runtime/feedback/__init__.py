"""Feedback of those who use the answers: validated, written durably, shipped to S3. Needs no model and no GPU."""
