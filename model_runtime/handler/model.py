"""What DJL Serving's Python engine calls: `handle(Input) -> Output`. A copy stands as `model.py` in the model folder.

The first call carries the properties and no content: the model is loaded then. Every later call is a batch.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

# The model folder carries the runtime it was written with; that copy is used, whatever else is installed.
if (Path(__file__).parent / "model_runtime").is_dir():
    sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from model_runtime.handler.service import Job, Service

log = logging.getLogger(__name__)
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_service: Service | None = None


def handle(inputs: Any) -> Any:
    """Answer a batch. As many contents go back as came; a bad item is answered with an error in its place."""
    from djl_python import Output

    if _service is None:
        _load(dict(inputs.get_properties()))
        if inputs.is_empty():
            return None
    service = _the_service()
    alone = not is_batched(inputs)
    items = [inputs] if alone else inputs.get_batches()
    pieces: SimpleQueue[tuple[int, str] | None] = SimpleQueue()

    def on_piece(index: int, text: str) -> bool:
        pieces.put((index, text))
        return True

    jobs = [_prepare(service, item, on_piece if alone else None) for item in items]
    output = Output()
    first = jobs[0]
    if alone and first.reply is None and first.streamed is not None:
        output.add_property("content-type", first.streamed.media_type)
        return output.add_stream_content(service.stream(first, pieces), output_formatter=bytearray)
    service.run(jobs)
    output.add_property("content-type", "application/json")
    for index, job in enumerate(jobs):
        if job.reply is None:
            raise RuntimeError("a job was left without a reply")
        streamed = job.streamed
        body = streamed.whole(job.reply, job.done) if streamed is not None else job.reply.encode()
        if alone:
            output.set_code(job.reply.status)
            output.add(body, key="data")
        else:
            # A batch has one status: an item's own stands in its body.
            output.add(body, key="data", batch_index=index)
    if service.broken:
        output.finalize(_leave)
    return output


def is_batched(inputs: Any) -> bool:
    """Whether several requests came. `djl_python.test_model` sets `batch_size` for one, without a batch's keys."""
    keys = inputs.get_content().get_keys()
    return bool(inputs.is_batch()) and all((key or "").startswith("batch_") for key in keys)


def _prepare(service: Service, item: Any, on_piece: Any) -> Job:
    body = b"" if item.is_empty() else bytes(item.get_as_bytes())
    content_type = item.get_property("content-type") or "application/json"
    # DJL Serving's id of the request, which its answer carries as x-request-id: the caller's own where one was given
    # (x-request-id, on SageMaker the InferenceId).
    given = item.get_property("requestId") or ""
    request_id = given if REQUEST_ID.fullmatch(given) else None
    return service.prepare(body, content_type, request_id=request_id, on_piece=on_piece)


def _load(properties: dict[str, Any]) -> None:
    global _service
    from model_runtime.handler.service import open_service
    from model_runtime.handler.settings import read_properties
    from model_runtime.progress import Lines

    folder = Path(properties.get("model_dir") or Path(__file__).parent)
    settings = read_properties(properties)
    _service, loaded = open_service(folder, settings, progress=Lines(lambda text: log.info("%s", text)))
    log.info("loaded in %.1f s, %d bytes of weights", loaded.seconds["load"], loaded.weights_bytes)
    for note in loaded.notes:
        log.info("note: %s", note)


def _the_service() -> Service:
    if _service is None:
        raise RuntimeError("the model is not loaded")
    return _service


def _leave() -> None:
    """The device's context is lost: end the worker, so that the engine starts a fresh one."""
    log.error("the device failed; the worker ends to be started again")
    sys.stdout.flush()
    os._exit(1)
