"""One module an AWS service: how each resource type is made, read, compared, changed and removed."""
