"""A stack's configuration as pydantic models: one class a role, every key described, bad ones refused by name.

Pulumi merges the defaults of `Pulumi.yaml` into every stack, so a key that another role owns counts as given only where
its value differs from that default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticUndefined

from infra.addresses import check_caller, check_network, is_private
from infra.durations import OfficeHours, parse_duration, parse_instant, parse_schedule
from sizing.errors import UserError, unknown

PROJECT = "berth"
Role = Literal["inference", "endpoint", "training", "shared"]
Purchase = Literal["on-demand", "reserved-1y", "reserved-3y", "savings-1y", "savings-3y", "spot", "capacity-block"]
Egress = Literal["auto", "nat", "endpoints"]
Invocation = Literal["auto", "real-time", "async"]
Loading = Literal["plain", "mmap"]
TrainingMethod = Literal["auto", "full", "lora", "qlora"]
TrainingOptimizer = Literal["adamw", "adamw8bit", "adafactor", "sgd", "lion"]
TrainingOffload = Literal["none", "optimizer", "all"]
TRAINING_DTYPES = ("bf16", "fp16", "fp32", "pure-bf16")
AUTO = "auto"
DEFAULT_ALARM_SECONDS = 10.0


class Settings(BaseModel):
    """What every stack has."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    role: Role = Field(
        description="What the stack is: inference (EC2 hosts), endpoint (SageMaker), training, or shared."
    )
    owner: str = Field(min_length=1, max_length=64, description="Person or team that answers for the stack; its tag.")
    budget_per_month: int = Field(
        ge=1, le=10_000_000, description="US dollars a month. A plan above it is refused; AWS Budgets warns at 80 %."
    )
    alarm_email: str = Field(
        default="", description="Address that alarms and the budget write to. Empty: nobody is told."
    )
    log_retention_days: int = Field(default=30, description="Days that logs are kept.")

    @field_validator("alarm_email")
    @classmethod
    def _an_address(cls, value: str) -> str:
        name, at, host = value.partition("@")
        if value and not (name and at and "." in host and " " not in value):
            raise ValueError(f"'{value}' is no e-mail address")
        return value

    @field_validator("log_retention_days")
    @classmethod
    def _a_retention(cls, value: int) -> int:
        allowed = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288,
                   3653)  # fmt: skip
        if value not in allowed:  # what CloudWatch Logs takes
            raise ValueError(f"{value} is not a retention of CloudWatch Logs; allowed: {', '.join(map(str, allowed))}")
        return value


class SharedSettings(Settings):
    """What outlives the other stacks: artifacts, their key, the image repository, the logs."""

    keep_versions_days: int = Field(
        default=90, ge=1, le=3650, description="Days that replaced and deleted versions of an artifact are kept."
    )


class MachineSettings(Settings):
    """What every stack with machines has."""

    shared_stack: str = Field(
        default=f"organization/{PROJECT}/shared",
        description="The shared stack as Pulumi names it: organization/project/stack.",
    )
    model: str = Field(default="", description="The model: a name of `berth models`, such as google/flan-t5-xl.")
    artifact: str = Field(
        default="",
        description="Prefix of the model's files in the artifact bucket. Empty: models/ and the model's name.",
    )
    artifact_manifest_sha256: str = Field(
        default="",
        pattern=r"^([0-9a-f]{64})?$",
        description="SHA-256 of the artifact's manifest.json; checked on the host.",
    )
    bundle: str = Field(
        default="",
        description="Prefix of the model_runtime bundle in the artifact bucket. Empty: bundles/ and the stack.",
    )
    bundle_manifest_sha256: str = Field(
        default="",
        pattern=r"^([0-9a-f]{64})?$",
        description="SHA-256 of the bundle's manifest.json; checked on the host.",
    )
    image: str = Field(
        default="", description="Container image URI. Empty: the pinned LMI image; for training, the stack's own."
    )
    dtype: str = Field(default=AUTO, description="Number format of the weights: auto, fp32, bf16, fp16, int8, nf4 …")
    input_tokens: int = Field(default=512, ge=1, le=10_000_000, description="Longest input in tokens.")
    output_tokens: int = Field(default=128, ge=0, le=10_000_000, description="Longest output in tokens.")
    instance_type: str = Field(
        default=AUTO,
        description="EC2 instance type. auto: sizing chooses; `berth settings STACK --record` writes it down.",
    )
    purchase: Purchase = Field(
        default="on-demand",
        description="Way of paying. Reservations and savings plans are bought apart; they set the price.",
    )
    zones: list[str] = Field(
        default=[],
        description="Availability zone ids (use1-az1), the preferred first. Empty: those that offer the type.",
    )
    zone_count: int = Field(default=2, ge=1, le=6, description="How many zones the network spans where zones is empty.")
    vpc_cidr: str = Field(default="10.42.0.0/16", description="Addresses of the stack's own VPC, /16 to /22.")
    vpc_id: str = Field(default="", pattern=r"^(vpc-[0-9a-f]+)?$", description="An existing VPC instead of an own one.")
    subnet_ids: list[str] = Field(default=[], description="Private subnets of the existing VPC.")
    egress: Egress = Field(
        default="auto",
        description="How hosts reach AWS's APIs: nat, endpoints (no way to the internet), auto: the cheaper.",
    )
    disk_gib: int = Field(
        default=0, ge=0, le=16_384, description="Root volume in GiB. 0: by the size of image and model."
    )
    ami: str = Field(
        default="",
        pattern=r"^(ami-[0-9a-f]+)?$",
        description="Machine image. Empty: AWS's Deep Learning AMI, kept once created.",
    )
    time_to_live: str = Field(default="off", description="How long the machines live: 90m, 12h, 30d, 2w, off.")
    expires_at: str = Field(default="", description="Moment (UTC) at which they are ended; recorded from time_to_live.")

    @field_validator("zones", "subnet_ids", "callers", mode="before", check_fields=False)
    @classmethod
    def _a_list(cls, value: Any) -> Any:
        """Pulumi hands lists over as JSON text."""
        if isinstance(value, str):
            try:
                return json.loads(value)
            except json.JSONDecodeError:
                raise ValueError(f"'{value}' is no list") from None
        return value

    @field_validator("artifact", "bundle", check_fields=False)
    @classmethod
    def _a_prefix(cls, value: str) -> str:
        if value.startswith(("/", "s3:")) or ".." in value or "*" in value:
            raise ValueError(f"'{value}' is no prefix inside the artifact bucket, such as models/flan-t5-xl")
        return value.rstrip("/")

    @field_validator("shared_stack")
    @classmethod
    def _a_stack_name(cls, value: str) -> str:
        if value.count("/") != 2 or not all(value.split("/")):
            raise ValueError(
                f"'{value}' must be organization/project/stack; with file:// state: organization/{PROJECT}/shared"
            )
        return value

    @field_validator("vpc_cidr")
    @classmethod
    def _a_network(cls, value: str) -> str:
        check_network(value)
        return value

    @field_validator("time_to_live")
    @classmethod
    def _a_duration(cls, value: str) -> str:
        parse_duration(value)
        return value

    @field_validator("expires_at")
    @classmethod
    def _a_moment(cls, value: str) -> str:
        if value:
            parse_instant(value)
        return value

    @model_validator(mode="after")
    def _machines_make_sense(self) -> MachineSettings:
        if not self.model:
            raise ValueError("model: is missing; name one of `berth models`, such as google/flan-t5-xl")
        if bool(self.vpc_id) != bool(self.subnet_ids):
            raise ValueError("vpc_id and subnet_ids: an existing network needs both")
        if self.vpc_id and self.egress != "auto":
            raise ValueError("egress: an existing VPC (vpc_id) keeps its own; leave egress out")
        if self.expires_at and self.time_to_live == "off":
            raise ValueError("expires_at: contradicts time_to_live off; give a time_to_live or remove expires_at")
        return self

    @property
    def expiry(self) -> datetime | None:
        """The recorded moment at which the machines end; None where none is recorded."""
        return parse_instant(self.expires_at) if self.expires_at else None

    @property
    def shared_name(self) -> str:
        """The shared stack's own name, as its file has it."""
        return self.shared_stack.rsplit("/", 1)[-1]


class ServiceSettings(MachineSettings):
    """What answers requests."""

    batch: int = Field(default=1, ge=1, le=4096, description="Requests that are answered together, at most.")
    replicas: int = Field(default=1, ge=1, le=200, description="Hosts, or instances of the endpoint, at least.")
    max_replicas: int = Field(default=0, ge=0, le=200, description="Most of them under load. 0: as many as replicas.")
    requests_per_day: int = Field(
        default=0,
        ge=0,
        le=10_000_000_000,
        description="Requests a day that sizing plans for. 0: for one batch.",
    )
    latency_ms: int = Field(
        default=0, ge=0, le=3_600_000,
        description="Milliseconds in which 19 of 20 requests are answered: sizing plans for it, an alarm watches it. "
        "0: no wish, the alarm stands at 10 s.",
    )  # fmt: skip
    loading: Loading = Field(
        default="plain",
        description="How weights are read, by which system RAM is counted (docs/loading.md): plain, as any image may; "
        "mmap, safetensors by from_pretrained of transformers 4.57 or 5, as Berth's handler does: less RAM.",
    )
    capture_percent: int = Field(
        default=0, ge=0, le=100, description="Share of requests whose input and output are kept in the artifact bucket."
    )

    @model_validator(mode="after")
    def _service_makes_sense(self) -> ServiceSettings:
        if self.max_replicas and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas: {self.max_replicas} is below replicas ({self.replicas})")
        if self.purchase == "capacity-block":
            raise ValueError("purchase: a capacity-block is for training; a service takes another way of paying")
        return self

    @property
    def alarm_seconds(self) -> float:
        """Seconds above which the latency alarm rings."""
        return self.latency_ms / 1000.0 or DEFAULT_ALARM_SECONDS

    @property
    def most_replicas(self) -> int:
        return self.max_replicas or self.replicas


class InferenceSettings(ServiceSettings):
    """EC2 hosts that serve a model."""

    callers: list[str] = Field(
        default=[], description="Who may call the service, as CIDR blocks. Empty: the VPC's own addresses only."
    )
    certificate_arn: str = Field(
        default="", pattern=r"^(arn:aws[\w-]*:acm:\S+)?$",
        description="ACM certificate for HTTPS; needed where callers come from the internet.",
    )  # fmt: skip
    schedule: str = Field(default="", description="Office hours: Mon-Fri 08:00-18:00 Europe/Berlin. Empty: always on.")
    feedback: bool = Field(
        default=False,
        description="Whether the host takes ratings and corrections, at port 8081; of a single host. "
        "`berth feedback` brings them down.",
    )

    @field_validator("callers")
    @classmethod
    def _blocks(cls, value: list[str]) -> list[str]:
        for block in value:
            check_caller(block)
        return value

    @field_validator("schedule")
    @classmethod
    def _hours(cls, value: str) -> str:
        parse_schedule(value)
        return value

    @model_validator(mode="after")
    def _inference_makes_sense(self) -> InferenceSettings:
        if self.internet_facing and not self.certificate_arn:
            outside = next(c for c in self.callers if not is_private(c))
            raise ValueError(f"callers: {outside} is on the internet, which needs HTTPS: give certificate_arn")
        if self.internet_facing and self.vpc_id:
            raise ValueError("callers: callers on the internet need the stack's own VPC; leave vpc_id out")
        if self.schedule and self.purchase == "spot" and not self.balanced:
            raise ValueError("schedule: a single spot host cannot be stopped and started; take replicas 2 or on-demand")
        if self.schedule and self.purchase in ("reserved-1y", "reserved-3y", "savings-1y", "savings-3y"):
            raise ValueError(f"schedule: {self.purchase} is paid for every hour; office hours save nothing with it")
        if self.feedback and self.balanced:
            raise ValueError(
                "feedback: a load balancer has no route for it; take one host with private callers "
                "(replicas 1, no larger max_replicas), or have your application keep the ratings"
            )
        return self

    @property
    def office_hours(self) -> OfficeHours | None:
        return parse_schedule(self.schedule)

    @property
    def internet_facing(self) -> bool:
        """Whether a caller's block lies outside the private ranges."""
        return any(not is_private(c) for c in self.callers)

    @property
    def balanced(self) -> bool:
        """Whether hosts stand behind a load balancer: several of them, or callers on the internet."""
        return self.most_replicas > 1 or self.internet_facing


class EndpointSettings(ServiceSettings):
    """A SageMaker endpoint that serves a model."""

    invocation: Invocation = Field(
        default="auto",
        description="How it is called: real-time, async (scales to zero), or auto: async where its start is tolerated.",
    )
    start_up_tolerance_seconds: int = Field(
        default=0, ge=0, le=86_400, description="Start-up delay in seconds that a caller tolerates."
    )

    @model_validator(mode="after")
    def _endpoint_makes_sense(self) -> EndpointSettings:
        if self.purchase in ("spot", "reserved-1y", "reserved-3y"):
            raise ValueError(f"purchase: SageMaker hosting has no {self.purchase}; take on-demand or savings-1y")
        if self.invocation == "async" and self.capture_percent:
            raise ValueError(
                "capture_percent: asynchronous endpoints keep every input and output already; leave it out"
            )
        return self


class TrainingSettings(MachineSettings):
    """Machines that fine-tune a model and then end themselves."""

    nodes: int = Field(default=1, ge=1, le=64, description="Machines that train together.")
    method: TrainingMethod = Field(
        default="auto",
        description="What is trained: every weight (full), adapters (lora), adapters over 4-bit weights (qlora); auto: "
        "sizing chooses.",
    )
    examples: int = Field(
        default=0, ge=0, le=10**9,
        description="Examples in the data set, by which sizing chooses a machine and foresees hours. 0: not known.",
    )  # fmt: skip
    epochs: float = Field(default=1.0, gt=0, le=10_000, description="Passes over the examples.")
    mean_input_tokens: int = Field(
        default=0, ge=0, le=10_000_000, description="Tokens of an average input. 0: as many as the longest."
    )
    mean_output_tokens: int = Field(
        default=0, ge=0, le=10_000_000, description="Tokens of an average output. 0: as many as the longest."
    )
    global_batch: int = Field(default=64, ge=1, le=65_536, description="Examples of a step, over all GPUs.")
    optimizer: TrainingOptimizer = Field(default="adamw", description="The optimizer.")
    lora_rank: int = Field(default=16, ge=1, le=65_536, description="Rank of the adapters of lora and qlora.")
    micro_batch_size: int = Field(
        default=0, ge=0, le=100_000,
        description="Examples that a GPU takes at once. 0: sizing chooses it, and zero_stage, offload, checkpointing.",
    )  # fmt: skip
    zero_stage: int = Field(default=0, ge=0, le=3, description="DeepSpeed's ZeRO stage; 0: without DeepSpeed.")
    offload: TrainingOffload = Field(
        default="none", description="What ZeRO keeps in host memory: none, the optimizer, or all (weights as well)."
    )
    checkpointing: bool = Field(
        default=False, description="Whether activations are computed anew in the backward pass, to save GPU memory."
    )
    finetune: str = Field(
        default="",
        description="JSON file in the project with further settings of the run: learning_rate, form, columns, prompt …",
    )
    budget_per_run: int = Field(
        default=0, ge=0, le=10_000_000, description="US dollars that one run may cost; 0: no limit."
    )
    dataset: str = Field(default="", description="Prefix of the data set in the artifact bucket.")
    run: str = Field(
        default="",
        pattern=r"^([a-z0-9][a-z0-9-]{0,62})?$",
        description="Name of the run, below which its output lies; `berth train` gives one.",
    )
    capacity_block_id: str = Field(
        default="", pattern=r"^(cr-[0-9a-f]+)?$", description="The Capacity Block (cr-…) that was bought for the run."
    )

    @field_validator("dataset")
    @classmethod
    def _a_dataset(cls, value: str) -> str:
        return cls._a_prefix(value)

    @model_validator(mode="after")
    def _training_makes_sense(self) -> TrainingSettings:
        if self.time_to_live == "off":
            raise ValueError("time_to_live: a training node must end; give it a time, such as 24h")
        if not self.dataset:
            raise ValueError("dataset: is missing; give its prefix in the artifact bucket")
        if self.dtype not in (AUTO, *TRAINING_DTYPES):
            allowed = ", ".join((AUTO, *TRAINING_DTYPES))
            raise ValueError(f"dtype: '{self.dtype}' is nothing to train in; allowed: {allowed}")
        if self.offload != "none" and self.zero_stage < (3 if self.offload == "all" else 1):
            needed = "3" if self.offload == "all" else "1, 2 or 3"
            raise ValueError(f"offload: {self.offload} needs zero_stage {needed}, not {self.zero_stage}")
        if self.finetune.startswith(("/", "~")) or ".." in self.finetune:
            raise ValueError(f"finetune: '{self.finetune}' is no path inside the project")
        if self.micro_batch_size and AUTO in (self.method, self.dtype, self.instance_type):
            raise ValueError("micro_batch_size: goes with a recorded method, dtype and instance_type, not with auto")
        if not self.micro_batch_size and (self.zero_stage or self.offload != "none" or self.checkpointing):
            raise ValueError("micro_batch_size: is missing; zero_stage, offload and checkpointing go with it")
        if bool(self.capacity_block_id) != (self.purchase == "capacity-block"):
            raise ValueError("capacity_block_id: goes with purchase capacity-block, and that with it")
        return self


MODELS: dict[str, type[Settings]] = {
    "inference": InferenceSettings,
    "endpoint": EndpointSettings,
    "training": TrainingSettings,
    "shared": SharedSettings,
}


class Keys:
    """Every key of every role with its description, default and roles, in the order of declaration."""

    _known: ClassVar[dict[str, tuple[Any, list[str]]]] = {}

    @classmethod
    def all(cls) -> dict[str, tuple[Any, list[str]]]:
        """Key to (pydantic's field, the roles that have it)."""
        if not cls._known:
            for role in ("shared", "inference", "endpoint", "training"):
                for name, field in MODELS[role].model_fields.items():
                    cls._known.setdefault(name, (field, []))[1].append(role)
        return cls._known

    @classmethod
    def default(cls, name: str) -> Any:
        """The default of a key, `PydanticUndefined` for one that every stack must give."""
        return cls.all()[name][0].default


def read_settings(values: Mapping[str, Any], stack: str) -> Settings:
    """The settings of `stack` from its keys without namespace; text as Pulumi passes it is converted.

    Raises `UserError` that names the keys which are unknown, belong to another role, or hold what they must not.
    """
    where = f"stack {stack}"
    known = Keys.all()
    for key in values:
        if key not in known:
            raise unknown(f"key of {where}", key, known, "`berth settings` explains them all")
    role = values.get("role")
    if role not in MODELS:
        given = "is missing" if role is None else f"is '{role}'"
        raise UserError(f"{where}: role {given}; it must be one of {', '.join(MODELS)}")
    model = MODELS[role]
    own: dict[str, Any] = {}
    for key, value in values.items():
        if role in known[key][1]:
            own[key] = value
        elif not _is_default(key, value):
            raise UserError(f"{where}: {key} is for {' and '.join(known[key][1])} stacks; this one's role is {role}")
    try:
        return model.model_validate(own)
    except ValidationError as error:
        raise UserError(f"{where}: {'; '.join(_said(e) for e in error.errors())}") from None


def _is_default(key: str, value: Any) -> bool:
    """Whether a value, native or as text, is the default that Pulumi merged in."""
    default = Keys.default(key)
    if default is PydanticUndefined:
        return False
    texts = [str(default), json.dumps(default), *([f"{default:g}"] if isinstance(default, float) else [])]
    return value == default or str(value) in texts


def _said(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{where} is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {message[0].lower() if where else message[0]}{message[1:]}" if where else message
