
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
ExecStart=/usr/bin/docker run --rm --name berth --gpus all --memory @MEMORY@ --memory-swap @MEMORY@ --pids-limit 4096 --shm-size 2g --security-opt no-new-privileges --publish 8080:8080 --volume /opt/berth/bundle:/opt/ml/model:ro --volume /opt/berth/data/model:/opt/berth/model:ro --volume /var/log/berth:/var/log/berth --env HF_HUB_OFFLINE=1 --env SERVING_FAIL_FAST=true --env OPT_OUT_TRACKING=true --env AWS_DEFAULT_REGION --env BERTH_STACK --env BERTH_BUCKET --env BERTH_OUTPUT --env BERTH_MODEL_DIR=/opt/berth/model $BERTH_IMAGE
ExecStop=/usr/bin/docker stop --time 60 berth
Restart=always
RestartSec=10
TimeoutStopSec=90
MemoryMax=@MEMORY@
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
@FEEDBACK@
until curl -sf --max-time 5 http://127.0.0.1:8080/ping > /dev/null; do
  if [ "$SECONDS" -gt @READY_SECONDS@ ]; then
    echo "not ready within @READY_SECONDS@ s" >&2
    /opt/berth/metric HostReady 0
    exit 1
  fi
  sleep 1
done
/opt/berth/metric HostReady 1
if [ -n "$BERTH_HOOK" ]; then aws autoscaling complete-lifecycle-action --lifecycle-hook-name "$BERTH_HOOK" --auto-scaling-group-name "$BERTH_GROUP" --lifecycle-action-result CONTINUE --instance-id "$BERTH_INSTANCE"; fi
echo "ready after $SECONDS s"
