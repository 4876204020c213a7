"""Prices of AWS services other than machines: data with source and date, and their loader."""
