"""Feedback and requests of a stack as they lie in its bucket."""

from __future__ import annotations

import base64
import json
from typing import Any

REGION = "us-east-1"


def lines(*records: Any) -> bytes:
    return b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in records)


def said(number: int, request_id: str, moment: float, **what: Any) -> dict[str, Any]:
    return {"id": f"f{number}", "time": moment, "request_id": request_id, **what}


def captured(
    event_id: str, asked: Any, answered: Any, inference_id: str = "", encoding: str = "BASE64"
) -> dict[str, Any]:
    """A line as SageMaker's data capture writes it."""

    def side(mode: str, document: Any) -> dict[str, str]:
        text = json.dumps(document)
        data = base64.b64encode(text.encode()).decode() if encoding == "BASE64" else text
        return {"observedContentType": "application/json", "mode": mode, "data": data, "encoding": encoding}

    event = {"eventId": event_id, "inferenceTime": "2026-11-20T10:00:00Z"}
    return {
        "captureData": {"endpointInput": side("INPUT", asked), "endpointOutput": side("OUTPUT", answered)},
        "eventMetadata": event | ({"inferenceId": inference_id} if inference_id else {}),
        "eventVersion": "0",
    }


def kept(request_id: str, text: str, answer: str, **more: Any) -> dict[str, Any]:
    """A line of a host's request log."""
    return {"request_id": request_id, "time": 1.0, "model": "m", "inputs": [text], "answers": [[answer]], **more}
