"""What Pulumi starts for `--policy-pack infra/policy`: serves the rules, never returns."""

from pulumi_policy import EnforcementLevel, PolicyPack

from infra.policy.pack import policies

PolicyPack(name="berth", enforcement_level=EnforcementLevel.MANDATORY, policies=list(policies()))
