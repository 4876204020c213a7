
# Whether or not the watchdog ever starts: systemd powers the machine off, by force when that takes two minutes.
install -d /etc/systemd/system/poweroff.target.d
printf '[Unit]\nJobTimeoutSec=120\n' > /etc/systemd/system/poweroff.target.d/berth.conf
systemctl daemon-reload
left=$(($(date -d '@DEAD_MAN_AT@' +%s) - $(date +%s)))
systemd-run --unit=berth-deadman --on-active="$((left > 1 ? left : 1))" --timer-property=AccuracySec=1s systemctl poweroff
# A set-up that fails leaves nothing that is worth a machine.
trap 'code=$?; if [ "$code" != 0 ]; then echo "the set-up failed ($code)"; aws s3 cp --only-show-errors /var/log/berth.log "s3://$BERTH_BUCKET/$BERTH_OUTPUT/logs/${BERTH_INSTANCE:-unknown}/berth.log" || true; systemctl poweroff; fi' EXIT