#!/bin/bash
# First start of a Berth host. Everything it needs is on the image or in the artifact bucket.
set -euo pipefail
exec > >(tee -a /var/log/berth.log) 2>&1
install -d -m 0755 /etc/berth /opt/berth /var/log/berth
cat > /etc/berth/env <<'BERTH_ENV'
AWS_DEFAULT_REGION=us-east-1
BERTH_NAMESPACE=Berth
BERTH_STACK=training
BERTH_BUCKET=berth-111122223333-us-east-1-artifacts
BERTH_IMAGE_REGION=us-east-1
BERTH_IMAGE=111122223333.dkr.ecr.us-east-1.amazonaws.com/berth/shared:training
BERTH_BUNDLE=bundles/training
BERTH_BUNDLE_SHA256=
BERTH_ARTIFACT=models/google-flan-t5-xl
BERTH_ARTIFACT_SHA256=
BERTH_DATASET=datasets/support-tickets
BERTH_OUTPUT=output/training
BERTH_NODES=1
BERTH_NODE_RANK=0
BERTH_FIRST_NODE=127.0.0.1
BERTH_DTYPE=bf16
BERTH_EXPIRES_AT=2026-11-25T12:00:00Z
BERTH_ENV
set -a; . /etc/berth/env; set +a
# Whether or not the watchdog ever starts: systemd powers the machine off, by force when that takes two minutes.
install -d /etc/systemd/system/poweroff.target.d
printf '[Unit]\nJobTimeoutSec=120\n' > /etc/systemd/system/poweroff.target.d/berth.conf
systemctl daemon-reload
left=$(($(date -d '2026-11-25 12:08:00 UTC' +%s) - $(date +%s)))
systemd-run --unit=berth-deadman --on-active="$((left > 1 ? left : 1))" --timer-property=AccuracySec=1s systemctl poweroff
# A set-up that fails leaves nothing that is worth a machine.
trap 'code=$?; if [ "$code" != 0 ]; then echo "the set-up failed ($code)"; aws s3 cp --only-show-errors /var/log/berth.log "s3://$BERTH_BUCKET/$BERTH_OUTPUT/logs/${BERTH_INSTANCE:-unknown}/berth.log" || true; systemctl poweroff; fi' EXIT
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
{"metrics":{"append_dimensions":{"InstanceId":"${aws:InstanceId}"},"aggregation_dimensions":[["InstanceId"]],"metrics_collected":{"nvidia_gpu":{"measurement":["utilization_gpu","memory_used"],"metrics_collection_interval":60},"disk":{"measurement":["used_percent"],"resources":["/"],"ignore_file_system_types":["tmpfs","overlay"]},"mem":{"measurement":["used_percent"]}}},"logs":{"logs_collected":{"files":{"collect_list":[{"file_path":"/var/log/berth.log","log_group_name":"/berth/training","log_stream_name":"training/{instance_id}/host"},{"file_path":"/var/log/berth/*.log","log_group_name":"/berth/training","log_stream_name":"training/{instance_id}/service"}]}}}}
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

python3 /opt/berth/fetch.py "$BERTH_BUCKET" "$BERTH_DATASET" /opt/berth/data/dataset ""
install -d /opt/berth/data/output
cat > /opt/berth/finish <<'BERTH_FINISH'
#!/bin/bash
# The watchdog ends the machine. Where there is none, the last attempt does: its shutdown is its termination.
aws s3 cp --only-show-errors /var/log/berth.log "s3://$BERTH_BUCKET/$BERTH_OUTPUT/logs/$BERTH_INSTANCE/berth.log" || true
for attempt in 1 2 3; do
  if systemctl is-active --quiet berth-watchdog; then exit 0; fi
  sleep 10
done
case "$SERVICE_RESULT $EXIT_STATUS" in
  success*|*" 2"|*" 75") systemctl poweroff ;;
  *) if [ "$(systemctl show berth-train --property NRestarts --value)" -ge 3 ]; then systemctl poweroff; fi ;;
esac
BERTH_FINISH
chmod 0755 /opt/berth/finish
cat > /etc/systemd/system/berth-train.service <<'BERTH_UNIT'
[Unit]
Description=Berth: the training run
After=docker.service network-online.target berth-prepare.service
Requires=docker.service berth-prepare.service
StartLimitIntervalSec=0
[Service]
EnvironmentFile=/etc/berth/env
ExecStartPre=-/usr/bin/docker rm -f berth
ExecStart=/usr/bin/docker run --rm --name berth --gpus all --network host --ipc host --ulimit memlock=-1 --memory 1082g --security-opt no-new-privileges  --volume /opt/berth/bundle:/opt/berth/bundle:ro --volume /opt/berth/data:/opt/berth/data --volume /var/log/berth:/var/log/berth --env-file /etc/berth/env --env HF_HUB_OFFLINE=1 --env PYTHONPATH=/opt/berth/bundle $BERTH_IMAGE python -m model_runtime.finetune /opt/berth/bundle/finetune.json
ExecStop=/usr/bin/docker stop --time 420 berth
ExecStopPost=+/opt/berth/finish
Restart=on-failure
RestartPreventExitStatus=2 75
RestartSec=30
TimeoutStopSec=450
StandardOutput=append:/var/log/berth/train.log
StandardError=inherit
[Install]
WantedBy=multi-user.target
BERTH_UNIT
cat > /etc/systemd/system/berth-watchdog.service <<'BERTH_UNIT'
[Unit]
Description=Berth: ends the machine
After=docker.service berth-prepare.service
StartLimitIntervalSec=0
[Service]
Type=notify
WatchdogSec=180
EnvironmentFile=/etc/berth/env
Environment=PYTHONPATH=/opt/berth/bundle PYTHONDONTWRITEBYTECODE=1
RuntimeDirectory=berth-watchdog
RuntimeDirectoryPreserve=yes
ExecStart=/usr/bin/python3 -m model_runtime.watchdog --unit berth-train --container berth --log /var/log/berth/train.log --output /opt/berth/data/output -- /usr/bin/docker run --rm --init --interactive --network host --volume /opt/berth/bundle:/opt/berth/bundle:ro --volume /opt/berth/data:/opt/berth/data --env-file /etc/berth/env --env PYTHONPATH=/opt/berth/bundle $BERTH_IMAGE python
Restart=always
RestartSec=5
TimeoutStopSec=10
OOMScoreAdjust=-1000
StandardOutput=append:/var/log/berth/watchdog.log
StandardError=inherit
[Install]
WantedBy=multi-user.target
BERTH_UNIT
systemctl daemon-reload
systemctl enable berth-watchdog berth-train
systemctl start --no-block berth-watchdog
systemctl start berth-train
