
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
ExecStart=/usr/bin/docker run --rm --name berth --gpus all --network host --ipc host --ulimit memlock=-1 --memory @MEMORY@ --security-opt no-new-privileges @DEVICES@ --volume /opt/berth/bundle:/opt/berth/bundle:ro --volume /opt/berth/data:/opt/berth/data --volume /var/log/berth:/var/log/berth --env-file /etc/berth/env --env HF_HUB_OFFLINE=1 --env PYTHONPATH=/opt/berth/bundle $BERTH_IMAGE python -m model_runtime.finetune /opt/berth/bundle/finetune.json
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
