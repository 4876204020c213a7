"""The stakeholder report: what Berth's commands printed, on one page for people who run no commands."""
