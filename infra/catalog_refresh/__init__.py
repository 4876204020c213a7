"""The live refresh of the catalogue: specs, offerings and prices from AWS's own APIs into this machine's cache.

It stands in `infra` and not beside the data in `sizing`, because it needs boto3, credentials and the network,
and `sizing` needs none of them. What it writes is data that `sizing.hardware.load` reads: no import leads back.
"""

KEPT = "the data in force are unchanged"
"""How every refusal of a refresh ends."""
