
install -d -m 0700 /opt/berth/feedback
cat > /etc/systemd/system/berth-feedback.service <<'BERTH_FEEDBACK'
[Unit]
Description=Berth: takes feedback
After=docker.service network-online.target berth-prepare.service
Requires=docker.service berth-prepare.service
[Service]
EnvironmentFile=/etc/berth/env
ExecStartPre=-/usr/bin/docker rm -f berth-feedback
ExecStart=/usr/bin/docker run --rm --name berth-feedback --memory @FEEDBACK_GIB@g --memory-swap @FEEDBACK_GIB@g --cpus 1 --pids-limit 1024 --security-opt no-new-privileges --publish 8081:8080 --mount type=bind,src=/opt/berth/bundle/feedback,dst=/opt/ml/model/feedback,readonly --volume /opt/berth/feedback:/opt/berth/feedback --env NVIDIA_VISIBLE_DEVICES=void --env HF_HUB_OFFLINE=1 --env SERVING_FAIL_FAST=true --env OPT_OUT_TRACKING=true --env AWS_DEFAULT_REGION --env BERTH_STACK --env BERTH_BUCKET --env BERTH_OUTPUT $BERTH_IMAGE
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
