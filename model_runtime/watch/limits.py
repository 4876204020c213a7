"""How long the watchdog waits for what, in seconds unless a name says otherwise."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """All must be positive. `lead_s` must hold the time for a checkpoint and `reserve_s` for its upload."""

    poll_s: float = 5.0
    """Between two looks at everything: what EC2's user guide asks for spot notices."""
    lead_s: float = 600.0
    """Before the expiry: from then on the job is asked to stop."""
    grace_s: float = 360.0
    """What the job has for its checkpoint after it was asked to stop."""
    reserve_s: float = 180.0
    """Of the time until the expiry, kept for the upload: the job is killed when only this is left."""
    margin_s: float = 300.0
    """After the expiry: the machine halts, whatever is not uploaded."""
    rescue_s: float = 300.0
    """What is left for saving when the wall clock alone jumps past the expiry."""
    dead_man_s: float = 480.0
    """After the expiry: systemd powers the machine off, whether or not the watchdog lives."""
    spot_s: float = 115.0
    """Until a spot machine is gone, from the moment at which its notice is seen (AWS gives two minutes)."""
    spot_reserve_s: float = 55.0
    """Of `spot_s`, kept for the upload."""
    kill_s: float = 20.0
    """After SIGKILL, or a tenth of what is left where that is less: a process that is still there hangs in the kernel,
    and is left behind."""
    idle_minutes: float = 30.0
    """Without work for any GPU; 0: never ends for it."""
    idle_percent: float = 5.0
    gpu_s: float = 15.0
    """Between two looks at the GPUs."""
    report_s: float = 20.0
    """For the last status to reach S3; half of it on a spot machine that is taken back."""
    heartbeat_s: float = 60.0
    """Between two statuses in S3 while the job runs, and between two looks at the machine's tag of its expiry."""
    longest_try_s: float = 3600.0
    """An upload that takes longer is killed and begun anew; what arrived is not sent again."""
    retry_s: float = 10.0
    """Before a failed upload is tried anew; doubled each time up to `longest_retry_s`."""
    longest_retry_s: float = 120.0
    halt_s: float = 60.0
    """After asking for a halt, before asking more roughly."""

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if not (value > 0 or (value == 0 and name in ("idle_minutes", "margin_s"))):
                raise ValueError(f"{name} is {value}; it must be positive")
        if self.margin_s + self.report_s > self.dead_man_s:
            raise ValueError(
                f"margin_s {self.margin_s:g} and report_s {self.report_s:g} end after dead_man_s {self.dead_man_s:g}"
            )
        if self.reserve_s >= self.lead_s or self.spot_reserve_s >= self.spot_s:
            raise ValueError("reserve_s must be less than lead_s, and spot_reserve_s less than spot_s")
