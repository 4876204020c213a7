"""Planned resources -> priced lines: one pricer a resource type; what has no known price is listed, never 0.

`infra.bill.bill` makes the bill; importing it imports Pulumi's SDK, which takes a second.
"""
