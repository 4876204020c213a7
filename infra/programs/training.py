"""The training stack: machines that fine-tune, hand over their artifacts and end."""

from __future__ import annotations

from typing import Any

import pulumi

from infra import metrics
from infra.components.guard import Expiry, ExpiryArgs, Notice, NoticeArgs
from infra.components.identity import Identity, IdentityArgs
from infra.components.observability import Observability, ObservabilityArgs, Watch
from infra.components.training_node import TrainingNodes, TrainingNodesArgs, first_node
from infra.context import Context, Shared
from infra.egress import choose_egress
from infra.endings import dead_man_at
from infra.host.user_data import memory_limit, user_data
from infra.images import TRAINING_TAG, ecr_repository_arn
from infra.places import artifact_prefix, bundle_prefix, run_prefix
from infra.programs.parts import DISK_PERCENT, HOST_SERVICES, IDLE_PERCENT, fetched, machine_of, network_of
from infra.settings import TrainingSettings
from model_runtime.training.checkpoints import FOLDER


def declare(context: Context) -> dict[str, Any]:
    settings, instance, _ = machine_of(context)
    if not isinstance(settings, TrainingSettings):
        raise TypeError(f"{context.stack} is no training stack")
    if context.expires_at is None:
        raise TypeError(f"{context.stack}: a training node has an expiry")
    shared = Shared.read(settings.shared_stack, "training")
    egress = choose_egress(settings.egress, context.region, HOST_SERVICES, 1)
    checkpoints = f"{run_prefix(settings, context.stack)}/{FOLDER}"
    network = network_of(context, shared, HOST_SERVICES, egress, spread=False, deletes=[checkpoints])
    image: pulumi.Input[str] = settings.image or pulumi.Output.concat(shared.repository_url, f":{TRAINING_TAG}")
    repository: pulumi.Input[str] = ecr_repository_arn(settings.image, context.partition) or shared.repository_arn
    identity = Identity(
        f"{context.stack}-identity",
        context,
        IdentityArgs(
            service="ec2.amazonaws.com",
            shared=shared,
            read_prefixes=[artifact_prefix(settings), bundle_prefix(settings, context.stack), settings.dataset],
            write_prefixes=[run_prefix(settings, context.stack)],
            delete_prefixes=[checkpoints],
            in_parts=True,
            repositories=[repository],
            log_streams=[shared.log_streams(context.stack)],
        ),
    )
    efa = settings.nodes > 1 and instance.efa
    values = {
        "MEMORY": memory_limit(instance.memory_bytes),
        "DEAD_MAN_AT": dead_man_at(context.expires_at),
        "DEVICES": "--device /dev/infiniband" if efa else "",
    }
    scripts = [
        user_data(
            "training",
            context,
            shared,
            {
                "BERTH_IMAGE": image,
                **fetched(context),
                "BERTH_DATASET": settings.dataset,
                "BERTH_OUTPUT": run_prefix(settings, context.stack),
                "BERTH_NODES": str(settings.nodes),
                "BERTH_NODE_RANK": str(rank),
                "BERTH_FIRST_NODE": first_node(context) if settings.nodes > 1 else "127.0.0.1",
                "BERTH_DTYPE": settings.dtype,
                "BERTH_EXPIRES_AT": context.expiry,
            },
            values,
        )
        for rank in range(settings.nodes)
    ]
    if identity.profile is None:
        raise TypeError("a node's identity has a profile")
    nodes = TrainingNodes(
        f"{context.stack}-node",
        context,
        TrainingNodesArgs(
            settings,
            network.vpc_id,
            network.private_subnets[0],
            identity.profile.name,
            identity.profile.arn,
            scripts,
            [network, identity],
        ),
    )
    notice = Notice(
        f"{context.stack}-notice", context, NoticeArgs(settings.budget_per_month, settings.alarm_email, shared)
    )
    Expiry(
        f"{context.stack}-expiry",
        context,
        ExpiryArgs(
            "ec2:terminateInstances",
            [pulumi.Output.json_dumps({"InstanceIds": [i.id]}) for i in nodes.instances],
            ["ec2:TerminateInstances"],
            [context.arn("ec2", "instance/*")],
        ),
    )
    _observe(context, notice, nodes)
    return {
        "instances": [i.id for i in nodes.instances],
        "artifacts": pulumi.Output.concat("s3://", shared.bucket, f"/{run_prefix(settings, context.stack)}"),
        "topic": notice.topic.arn,
        "expires_at": context.expiry,
    }


def _observe(context: Context, notice: Notice, nodes: TrainingNodes) -> None:
    watches: list[Watch] = []
    use = []
    for rank, node in enumerate(nodes.instances):
        own: dict[str, pulumi.Input[str]] = {"InstanceId": node.id}
        use.append((metrics.AGENT_NAMESPACE, metrics.GPU_USE, own, "Average"))
        watches += [
            Watch(
                f"idle-{rank}", f"node {rank}: the GPUs have had nothing to do for 30 minutes", metrics.AGENT_NAMESPACE,
                metrics.GPU_USE, own, "Average", "<", IDLE_PERCENT, 300, 6,
            ),
            Watch(
                f"disk-{rank}", f"node {rank}: the root volume is nearly full", metrics.AGENT_NAMESPACE,
                metrics.DISK_USE, own, "Maximum", ">", DISK_PERCENT,
            ),
            Watch(
                f"ill-{rank}", f"node {rank}: AWS's status check fails", "AWS/EC2", "StatusCheckFailed", own, "Maximum",
                ">", 0,
            ),
        ]  # fmt: skip
    Observability(f"{context.stack}-watch", context, ObservabilityArgs(notice.topic.arn, watches, {"GPU use (%)": use}))
