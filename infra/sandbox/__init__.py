"""A local AWS to try every stack on with no account: moto on 127.0.0.1, and a provider of `aws` resources over it."""
