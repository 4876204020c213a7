"""What `berth verify` measured, as data: read from its file, held against the estimate, carried to what is close."""
