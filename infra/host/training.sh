
python3 /opt/berth/fetch.py "$BERTH_BUCKET" "$BERTH_DATASET" /opt/berth/data/dataset ""
install -d /opt/berth/data/output
cat > /opt/berth/finish <<'BERTH_FINISH'
#!/bin/bash
# After the last attempt the machine ends itself: its shutdown is its termination.
if [ "$SERVICE_RESULT" = success ] || [ "$(systemctl show berth-train --property NRestarts --value)" -ge 3 ]; then
  aws s3 cp --only-show-errors /var/log/berth.log "s3://$BERTH_BUCKET/$BERTH_OUTPUT/logs/$BERTH_INSTANCE/berth.log" || true
  systemctl poweroff
fi
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
ExecStop=/usr/bin/docker stop --time 90 berth
ExecStopPost=+/opt/berth/finish
Restart=on-failure
RestartSec=30
TimeoutStopSec=120
StandardOutput=append:/var/log/berth/train.log
StandardError=inherit
[Install]
WantedBy=multi-user.target
BERTH_UNIT
systemctl daemon-reload
# Ten minutes before the guard ends the machine from outside, training is stopped so that it can save what it has.
systemd-run --on-calendar='@STOP_AT@' --timer-property=AccuracySec=1s /bin/bash -c 'systemctl stop berth-train; systemctl poweroff'
systemctl enable --now berth-train
