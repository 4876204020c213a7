#!/bin/bash
# First start of a Berth host. Everything it needs is on the image or in the artifact bucket.
set -euo pipefail
exec > >(tee -a /var/log/berth.log) 2>&1
install -d -m 0755 /etc/berth /opt/berth /var/log/berth
cat > /etc/berth/env <<'BERTH_ENV'
AWS_DEFAULT_REGION=us-east-1
BERTH_NAMESPACE=Berth
BERTH_STACK=inference-dev
BERTH_BUCKET=berth-111122223333-us-east-1-artifacts
BERTH_IMAGE_REGION=us-east-1
BERTH_IMAGE=763104351884.dkr.ecr.us-east-1.amazonaws.com/djl-inference:0.36.0-lmi20.0.0-cu128
BERTH_BUNDLE=bundles/inference-dev
BERTH_BUNDLE_SHA256=
BERTH_ARTIFACT=models/google-flan-t5-xl
BERTH_ARTIFACT_SHA256=
BERTH_OUTPUT=output/inference-dev
BERTH_SPOT=no
BERTH_GROUP=
BERTH_HOOK=
BERTH_TARGET_GROUP=
BERTH_ENV
set -a; . /etc/berth/env; set +a
cat > /opt/berth/imds <<'BERTH_IMDS'
#!/bin/bash
# imds PATH: what the instance's metadata service says; fails where it says nothing.
token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
exec curl -sf -H "X-aws-ec2-metadata-token: $token" "http://169.254.169.254/latest/$1"
BERTH_IMDS
cat > /opt/berth/metric <<'BERTH_METRIC'
#!/bin/bash
# metric NAME VALUE: one data point of this stack.
exec aws cloudwatch put-metric-data --namespace "$BERTH_NAMESPACE" --metric-name "$1" --value "$2" --dimensions "Stack=$BERTH_STACK"
BERTH_METRIC
cat > /opt/berth/fetch.py <<'BERTH_FETCH'
import hashlib
import json
import subprocess
import sys
from pathlib import Path
CHUNK = 1 << 22
def digest(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            sha.update(piece)
    return sha.hexdigest()
def problems(folder: Path, expected: str) -> list[str]:
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return ["manifest.json is missing"]
    if expected and digest(manifest) != expected:
        return ["manifest.json is not the one that the stack names"]
    found = []
    for entry in json.loads(manifest.read_text(encoding="utf-8"))["files"]:
        path = (folder / entry["path"]).resolve()
        if not path.is_relative_to(folder.resolve()):
            found.append(f"{entry['path']} leads out of the folder")
        elif not path.is_file():
            found.append(f"{entry['path']} is missing")
        elif path.stat().st_size != entry["size"] or digest(path) != entry["sha256"]:
            found.append(f"{entry['path']} is damaged")
    return found
def main() -> int:
    bucket, prefix, target, expected = [*sys.argv[1:], ""][:4]
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(3):
        copy = ["aws", "s3", "sync", "--only-show-errors", "--exact-timestamps", f"s3://{bucket}/{prefix}", str(folder)]
        copied = subprocess.run(copy, check=False)
        wrong = (
            problems(folder, expected) if copied.returncode == 0 else [f"aws s3 sync ended with {copied.returncode}"]
        )
        if not wrong:
            return 0
        sys.stderr.write(f"attempt {attempt + 1} of s3://{bucket}/{prefix}: {'; '.join(wrong)}\n")
        for entry in wrong:
            if entry.endswith(" is damaged"):
                (folder / entry.removesuffix(" is damaged")).unlink(missing_ok=True)
    return 1
if __name__ == "__main__":
    sys.exit(main())
BERTH_FETCH
chmod 0755 /opt/berth/imds /opt/berth/metric
echo "BERTH_INSTANCE=$(/opt/berth/imds meta-data/instance-id)" >> /etc/berth/env
set -a; . /etc/berth/env; set +a

cat > /etc/berth/agent.json <<'BERTH_AGENT'
{"metrics":{"append_dimensions":{"InstanceId":"${aws:InstanceId}"},"aggregation_dimensions":[["InstanceId"]],"metrics_collected":{"nvidia_gpu":{"measurement":["utilization_gpu","memory_used"],"metrics_collection_interval":60},"disk":{"measurement":["used_percent"],"resources":["/"],"ignore_file_system_types":["tmpfs","overlay"]},"mem":{"measurement":["used_percent"]}}},"logs":{"logs_collected":{"files":{"collect_list":[{"file_path":"/var/log/berth.log","log_group_name":"/berth/inference","log_stream_name":"inference-dev/{instance_id}/host"},{"file_path":"/var/log/berth/*.log","log_group_name":"/berth/inference","log_stream_name":"inference-dev/{instance_id}/service"}]}}}}
BERTH_AGENT
agent=/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl
if [ -x "$agent" ]; then
  "$agent" -a fetch-config -m ec2 -s -c file:/etc/berth/agent.json
else
  echo "no CloudWatch agent on this image: no GPU metrics and no logs" >&2
fi
if command -v dcgmi > /dev/null && systemctl list-unit-files nvidia-dcgm.service > /dev/null; then systemctl enable --now nvidia-dcgm || true; fi

cat > /opt/berth/prepare <<'BERTH_PREPARE'
#!/bin/bash
# At every boot: the instance's own disks are faster than the network's, and empty after a stop.
set -euo pipefail
data=/opt/berth/store
if mountpoint -q /opt/dlami/nvme; then data=/opt/dlami/nvme/berth; fi
install -d "$data"
ln -sfn "$data" /opt/berth/data
python3 /opt/berth/fetch.py "$BERTH_BUCKET" "$BERTH_BUNDLE" /opt/berth/bundle "$BERTH_BUNDLE_SHA256"
python3 /opt/berth/fetch.py "$BERTH_BUCKET" "$BERTH_ARTIFACT" /opt/berth/data/model "$BERTH_ARTIFACT_SHA256"
BERTH_PREPARE
chmod 0755 /opt/berth/prepare
printf '[Unit]\nDescription=Berth: bundle and model\nAfter=network-online.target dlami-nvme.service\nWants=network-online.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\nTimeoutStartSec=infinity\nEnvironmentFile=/etc/berth/env\nExecStart=/opt/berth/prepare\n[Install]\nWantedBy=multi-user.target\n' > /etc/systemd/system/berth-prepare.service
systemctl daemon-reload
systemctl enable berth-prepare
systemctl start berth-prepare

registry=${BERTH_IMAGE%%/*}
for attempt in 1 2 3; do
  if aws ecr get-login-password --region "$BERTH_IMAGE_REGION" | docker login --username AWS --password-stdin "$registry" && docker pull --quiet "$BERTH_IMAGE"; then break; fi
  if [ "$attempt" = 3 ]; then echo "$BERTH_IMAGE could not be pulled" >&2; exit 1; fi
  sleep 10
done

cat > /etc/systemd/system/berth-serve.service <<'BERTH_UNIT'
[Unit]
Description=Berth: the model server
After=docker.service network-online.target berth-prepare.service
Requires=docker.service berth-prepare.service
StartLimitIntervalSec=900
StartLimitBurst=5
[Service]
EnvironmentFile=/etc/berth/env
ExecStartPre=-/usr/bin/docker rm -f berth
ExecStart=/usr/bin/docker run --rm --name berth --gpus all --memory 28g --memory-swap 28g --pids-limit 4096 --shm-size 2g --security-opt no-new-privileges --publish 8080:8080 --volume /opt/berth/bundle:/opt/ml/model:ro --volume /opt/berth/data/model:/opt/berth/model:ro --volume /var/log/berth:/var/log/berth --env HF_HUB_OFFLINE=1 --env SERVING_FAIL_FAST=true --env OPT_OUT_TRACKING=true --env AWS_DEFAULT_REGION --env BERTH_STACK --env BERTH_BUCKET --env BERTH_OUTPUT --env BERTH_MODEL_DIR=/opt/berth/model $BERTH_IMAGE
ExecStop=/usr/bin/docker stop --time 60 berth
Restart=always
RestartSec=10
TimeoutStopSec=90
MemoryMax=28g
StandardOutput=append:/var/log/berth/serve.log
StandardError=inherit
[Install]
WantedBy=multi-user.target
BERTH_UNIT
cat > /opt/berth/health <<'BERTH_HEALTH'
#!/bin/bash
# One data point a minute, so that silence counts as ill.
if curl -sf --max-time 20 http://127.0.0.1:8080/ping > /dev/null; then /opt/berth/metric Healthy 1; else /opt/berth/metric Healthy 0; fi
BERTH_HEALTH
cat > /opt/berth/drain <<'BERTH_DRAIN'
#!/bin/bash
# Waits for a spot interruption (two minutes' notice), then takes the host out of the load balancer and stops serving.
until /opt/berth/imds meta-data/spot/instance-action > /dev/null; do sleep 5; done
if [ -n "$BERTH_TARGET_GROUP" ]; then aws elbv2 deregister-targets --target-group-arn "$BERTH_TARGET_GROUP" --targets "Id=$BERTH_INSTANCE"; sleep 30; fi
systemctl stop berth-serve
BERTH_DRAIN
chmod 0755 /opt/berth/health /opt/berth/drain
printf '[Unit]\nDescription=Berth: health\n[Service]\nType=oneshot\nEnvironmentFile=/etc/berth/env\nExecStart=/opt/berth/health\n' > /etc/systemd/system/berth-health.service
printf '[Unit]\nDescription=Berth: health each minute\n[Timer]\nOnBootSec=60\nOnUnitActiveSec=60\nAccuracySec=1\n[Install]\nWantedBy=timers.target\n' > /etc/systemd/system/berth-health.timer
printf '[Unit]\nDescription=Berth: spot interruption\n[Service]\nEnvironmentFile=/etc/berth/env\nExecStart=/opt/berth/drain\nRestart=on-failure\nRestartSec=5\n[Install]\nWantedBy=multi-user.target\n' > /etc/systemd/system/berth-drain.service
systemctl daemon-reload
systemctl enable --now berth-serve berth-health.timer
if [ "$BERTH_SPOT" = yes ]; then systemctl enable --now berth-drain; fi

install -d -m 0700 /opt/berth/feedback
cat > /etc/systemd/system/berth-feedback.service <<'BERTH_FEEDBACK'
[Unit]
Description=Berth: takes feedback
After=docker.service network-online.target berth-prepare.service
Requires=docker.service berth-prepare.service
[Service]
EnvironmentFile=/etc/berth/env
ExecStartPre=-/usr/bin/docker rm -f berth-feedback
ExecStart=/usr/bin/docker run --rm --name berth-feedback --memory 2g --memory-swap 2g --cpus 1 --pids-limit 1024 --security-opt no-new-privileges --publish 8081:8080 --mount type=bind,src=/opt/berth/bundle/feedback,dst=/opt/ml/model/feedback,readonly --volume /opt/berth/feedback:/opt/berth/feedback --env NVIDIA_VISIBLE_DEVICES=void --env HF_HUB_OFFLINE=1 --env SERVING_FAIL_FAST=true --env OPT_OUT_TRACKING=true --env AWS_DEFAULT_REGION --env BERTH_STACK --env BERTH_BUCKET --env BERTH_OUTPUT $BERTH_IMAGE
ExecStop=/usr/bin/docker stop --time 60 berth-feedback
Restart=always
RestartSec=10
TimeoutStopSec=90
StandardOutput=append:/var/log/berth/feedback.log
StandardError=inherit
[Install]
WantedBy=multi-user.target
BERTH_FEEDBACK
systemctl daemon-reload
systemctl enable --now berth-feedback

until curl -sf --max-time 5 http://127.0.0.1:8080/ping > /dev/null; do
  if [ "$SECONDS" -gt 1397 ]; then
    echo "not ready within 1397 s" >&2
    /opt/berth/metric HostReady 0
    exit 1
  fi
  sleep 1
done
/opt/berth/metric HostReady 1
if [ -n "$BERTH_HOOK" ]; then aws autoscaling complete-lifecycle-action --lifecycle-hook-name "$BERTH_HOOK" --auto-scaling-group-name "$BERTH_GROUP" --lifecycle-action-result CONTINUE --instance-id "$BERTH_INSTANCE"; fi
echo "ready after $SECONDS s"
