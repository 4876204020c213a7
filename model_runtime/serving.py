"""Serving a folder on this machine: its settings, what overrides them, the model, the server, until the end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from model_runtime.errors import ModelError
from model_runtime.feedback.journal import Journal
from model_runtime.handler.bundle import differs_from_installed
from model_runtime.handler.service import open_service
from model_runtime.handler.settings import FILE, ServingSettings, read_folder
from model_runtime.progress import Progress
from model_runtime.server.app import Server, ServerLimits
from model_runtime.server.run import Draining, listen, serve


@dataclass(frozen=True, slots=True)
class Options:
    """How to serve. `overrides` go over the folder's own settings, by the names of `ServingSettings`."""

    overrides: Mapping[str, Any] = field(default_factory=dict)
    max_body_bytes: int = 12_000_000
    answer_s: float | None = None
    drain_s: float = 0.0
    api_key: str = ""
    feedback: Path | None = None


def settings_of(folder: Path, overrides: Mapping[str, Any]) -> ServingSettings:
    """Settings of a model folder, or of a model's own folder; `overrides` over them. Raises `ModelError`."""
    if (folder / FILE).is_file():
        return replace(read_folder(folder), **overrides)
    if (folder / "config.json").is_file():
        return ServingSettings(**{"model": ".", "model_name": folder.resolve().name or "model", **overrides})
    what = "is no folder" if not folder.is_dir() else f"has neither {FILE} nor config.json"
    raise ModelError(f"{folder} {what}; give a model folder (berth bundle) or a model's own folder")


def open_and_serve(
    folder: Path,
    host: str,
    port: int,
    options: Options,
    *,
    say: Callable[[str], None],
    watched: Callable[[], AbstractContextManager[Progress]],
) -> None:
    """Load the model of `folder` and serve it until SIGTERM or SIGINT. `say` gets lines for a person.

    `watched` gives who is told how far loading is.
    """
    settings = settings_of(folder, options.overrides)
    bound = listen(host, port)
    try:
        if differs_from_installed(folder):
            say("note: the folder carries another runtime than this one, which serves it; berth bundle writes it anew")
        with watched() as progress:
            service, loaded = open_service(folder, settings, progress=progress)
        answer_s = options.answer_s or float(settings.predict_timeout_s)
        server = Server(
            service,
            limits=ServerLimits(options.max_body_bytes, answer_s=answer_s),
            api_key=options.api_key,
            journal=None if options.feedback is None else Journal(options.feedback),
        )

        def ready(url: str, _: Draining) -> None:
            for note in loaded.notes:
                say(f"note: {note}")
            say(
                f"{settings.model_name}: {loaded.architecture}, {loaded.quantize or loaded.dtype}, "
                f"{loaded.weights_bytes / 2**20:,.1f} MiB of weights on {loaded.device.name}, "
                f"batches of {settings.batch_size}"
            )
            since_start = time.time() - psutil.Process().create_time()
            say(f"ready {since_start:.1f} s after its start: {url} (POST /invocations, /v1/chat/completions)")

        serve(server, bound, drain_s=options.drain_s, grace_s=answer_s, on_ready=ready)
        if server.journal is not None:
            server.journal.close()
        say("drained and ended")
    finally:
        bound.close()


def main() -> None:
    """`python -m model_runtime.serving FOLDER OVERRIDES`: serve on a free port and print the address: for verify."""
    folder, overrides = Path(sys.argv[1]), json.loads(sys.argv[2])
    settings = settings_of(folder, {"metrics": "off", **overrides})
    bound = listen("127.0.0.1", 0)
    service, _ = open_service(folder, settings)

    def ready(url: str, _: Draining) -> None:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()

    serve(Server(service), bound, on_ready=ready)
    bound.close()


if __name__ == "__main__":
    main()
