"""What DJL Serving's Python engine calls for feedback. A copy stands as `model.py` in the feedback folder.

Options: `option.journal_dir` (where records are written; a volume that outlives the container), `option.feedback_uri`
(the S3 prefix they are shipped to; none: the stack's own where the
environment names one, else they stay on the disk).
"""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if (Path(__file__).parent / "model_runtime").is_dir():
    sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from model_runtime.feedback.journal import Journal

_journal: Journal | None = None


def handle(inputs: Any) -> Any:
    """Take a batch of feedback. The call that carries no content opens the journal."""
    global _journal  # noqa: PLW0603 (the engine keeps one module a worker)
    from djl_python import Output

    from model_runtime.feedback.intake import take
    from model_runtime.handler.answers import encode
    from model_runtime.handler.model import is_batched

    if _journal is None:
        _journal = _open(dict(inputs.get_properties()))
        if inputs.is_empty():
            return None
    alone = not is_batched(inputs)
    items = [inputs] if alone else inputs.get_batches()
    replies = take([b"" if i.is_empty() else bytes(i.get_as_bytes()) for i in items], _journal)
    output = Output()
    output.add_property("content-type", "application/json")
    for index, (status, document) in enumerate(replies):
        if alone:
            output.set_code(status)
            output.add(encode(document), key="data")
        else:
            output.add(encode(document), key="data", batch_index=index)
    return output


def _open(properties: dict[str, Any]) -> Journal:
    from model_runtime.feedback.journal import Journal, Shipper, place_of

    folder = properties.get("journal_dir") or Path(properties.get("model_dir") or ".") / "journal"
    journal = Journal(Path(folder))
    uri = place_of(properties.get("feedback_uri"), os.environ)
    if uri:
        import boto3

        atexit.register(Shipper(journal, uri, boto3.client("s3")).stop)
    return journal
