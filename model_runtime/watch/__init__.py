"""Parts of the watchdog. All but `deliver` and `status` run on the host's own Python (3.10) with nothing installed."""
