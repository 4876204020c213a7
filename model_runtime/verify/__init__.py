"""Verifying: what a served model does on this machine, measured, beside what was estimated. Imports `sizing`."""
