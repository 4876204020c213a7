"""Container images: pinned, in AWS's own registry of Deep Learning Containers."""

from __future__ import annotations

from infra.settings import MachineSettings, TrainingSettings
from sizing.models.facts import ModelFacts

DLC_ACCOUNT = "763104351884"
"""AWS's account for Deep Learning Containers in the commercial regions."""
LMI_REPOSITORY = "djl-inference"
LMI_WITH_TRANSFORMERS_4 = "0.36.0-lmi20.0.0-cu128"
"""Encoder-decoder models: later images serve with vLLM and Transformers 5, which have no path for them."""
LMI_NEWEST = "0.36.0-lmi28.0.0-cu130"
"""Decoder-only models, served by vLLM."""
TRAINING_TAG = "training"
"""Tag of the training image in the shared repository."""


def lmi_repository(region: str) -> str:
    return f"{DLC_ACCOUNT}.dkr.ecr.{region}.amazonaws.com/{LMI_REPOSITORY}"


def lmi_image(model: ModelFacts, region: str) -> str:
    """The image that serves `model`."""
    tag = LMI_NEWEST if model.architecture == "decoder-only" else LMI_WITH_TRANSFORMERS_4
    return f"{lmi_repository(region)}:{tag}"


def image_of(settings: MachineSettings, model: ModelFacts, region: str) -> str:
    """The image that a stack names, or the pinned one; empty where training takes the shared repository's."""
    if settings.image or isinstance(settings, TrainingSettings):
        return settings.image
    return lmi_image(model, region)


def ecr_repository_arn(image: str, partition: str = "aws") -> str:
    """The ARN of the ECR repository that an image URI names; empty for another registry."""
    host, slash, path = image.partition("/")
    parts = host.split(".")
    if not slash or len(parts) < 6 or parts[1:3] != ["dkr", "ecr"]:
        return ""
    repository = path.split("@")[0].split(":")[0]
    return f"arn:{partition}:ecr:{parts[3]}:{parts[0]}:repository/{repository}"
