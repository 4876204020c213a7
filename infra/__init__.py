"""The Pulumi programs, their bill and their life cycle."""
