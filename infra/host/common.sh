#!/bin/bash
# First start of a Berth host. Everything it needs is on the image or in the artifact bucket.
set -euo pipefail
exec > >(tee -a /var/log/berth.log) 2>&1
install -d -m 0755 /etc/berth /opt/berth /var/log/berth
cat > /etc/berth/env <<'BERTH_ENV'
@ENV@
BERTH_ENV
set -a; . /etc/berth/env; set +a@FIRST@
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
@FETCH@
BERTH_FETCH
chmod 0755 /opt/berth/imds /opt/berth/metric
echo "BERTH_INSTANCE=$(/opt/berth/imds meta-data/instance-id)" >> /etc/berth/env
set -a; . /etc/berth/env; set +a

cat > /etc/berth/agent.json <<'BERTH_AGENT'
@AGENT@
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
