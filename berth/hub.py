"""The model hub over HTTP, for models that are neither in the catalogue nor in a folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

from sizing.errors import UserError
from sizing.models.resolve import resolve_model

if TYPE_CHECKING:
    import httpx

    from sizing.models.facts import ModelFacts

DEFAULT_ENDPOINT = "https://huggingface.co"
TIMEOUT_S = 15.0
OTHER_WAYS = "name a model of `berth models`, or a folder with its config.json"


def offline() -> bool:
    """Whether the environment forbids the hub (`HF_HUB_OFFLINE`, as huggingface_hub reads it)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


class HubPlace:
    """The files of one model on the hub, at one commit; a read asks for no more bytes than it returns."""

    def __init__(self, client: httpx.Client, name: str, about: dict[str, Any]) -> None:
        self._client = client
        self._name = name
        self._commit = about.get("sha") if isinstance(about.get("sha"), str) else "main"
        files = about.get("siblings")
        self._sizes = {
            str(f["rfilename"]): f["size"] if isinstance(f.get("size"), int) else -1
            for f in (files if isinstance(files, list) else [])
            if isinstance(f, dict) and "rfilename" in f
        }

    @property
    def where(self) -> str:
        return f"{self._name} on the hub"

    def size(self, file: str) -> int | None:
        return self._sizes.get(file)

    def read(self, file: str, start: int, length: int) -> bytes:
        import httpx

        wanted = {"Range": f"bytes={start}-{start + length - 1}"}
        kept = bytearray()
        try:
            with self._client.stream("GET", f"/{self._name}/resolve/{self._commit}/{file}", headers=wanted) as answer:
                if answer.status_code not in (200, 206):
                    raise _refused(self._name, answer)
                # A server may ignore Range and send the file from its start; no more of it is read than is needed.
                skip = start if answer.status_code == 200 else 0
                for chunk in answer.iter_bytes():
                    kept += chunk
                    if len(kept) >= skip + length:
                        break
        except httpx.HTTPError as error:
            raise _unreachable(self._name, error) from error
        return bytes(kept[skip : skip + length])


class HuggingFaceHub:
    """huggingface.co, or the mirror that `HF_ENDPOINT` names; `HF_TOKEN` opens gated models."""

    def __init__(self) -> None:
        self._about: dict[str, dict[str, Any]] = {}
        self._open: httpx.Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _client(self) -> httpx.Client:
        import httpx

        if self._open is None:
            token = os.environ.get("HF_TOKEN", "").strip()
            self._open = httpx.Client(
                base_url=os.environ.get("HF_ENDPOINT", "").rstrip("/") or DEFAULT_ENDPOINT,
                headers={"Authorization": f"Bearer {token}"} if token else {},
                timeout=TIMEOUT_S,
                follow_redirects=True,
            )
        return self._open

    def place(self, name: str) -> HubPlace:
        """The files of `org/name`. Raises `UserError` when the hub has no such model, refuses, or does not answer."""
        import httpx

        client = self._client()
        try:
            answer = client.get(f"/api/models/{name}", params={"blobs": "true"})
        except httpx.HTTPError as error:
            raise _unreachable(name, error) from error
        if answer.status_code != 200:
            raise _refused(name, answer)
        try:
            about = answer.json()
        except ValueError as error:
            raise UserError(f"model '{name}': the hub's answer is not JSON; {OTHER_WAYS}") from error
        self._about[name] = about if isinstance(about, dict) else {}
        return HubPlace(client, name, self._about[name])

    def licence(self, name: str) -> str:
        """Licence id on the model's card; for `other`, the name that the card gives it."""
        card = self._about.get(name, {}).get("cardData")
        if not isinstance(card, dict):
            return ""
        written = card.get("license")
        if written == "other" and isinstance(card.get("license_name"), str):
            written = card["license_name"]
        return written if isinstance(written, str) else ""


def _refused(name: str, answer: httpx.Response) -> UserError:
    """What the hub's refusal means; it answers 401 for a name that does not exist as well."""
    code = answer.headers.get("X-Error-Code", "")
    if code == "GatedRepo" or answer.status_code == 403:
        return UserError(
            f"model '{name}' is gated: accept its licence on its page of the hub and set HF_TOKEN, or {OTHER_WAYS}"
        )
    if answer.status_code in (401, 404):
        return UserError(f"unknown model '{name}': neither in the catalogue nor on the hub (or private); {OTHER_WAYS}")
    return UserError(f"model '{name}': the hub answers {answer.status_code}; try later, or {OTHER_WAYS}")


def _unreachable(name: str, error: Exception) -> UserError:
    why = " ".join(str(error).split())[:80] or type(error).__name__
    return UserError(f"model '{name}' is not in the catalogue, and the hub does not answer ({why}); {OTHER_WAYS}")


def find_model(text: str) -> ModelFacts:
    """The model that `text` means: a catalogue name, a folder, or `org/name`, which is asked of the hub unless offline.

    The hub is reached only for a name that is neither of the others. Raises `UserError` in one line.
    """
    if offline():
        return resolve_model(text)
    with HuggingFaceHub() as hub:
        return resolve_model(text, hub=hub)
