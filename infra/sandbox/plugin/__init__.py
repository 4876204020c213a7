"""The plugin folder that Pulumi starts as the `aws` provider: a doorway to `infra.sandbox.provider`."""
