"""The policy pack: its rules are plain functions over resources, used by `berth preview` and by Pulumi alike."""
