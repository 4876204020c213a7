"""One answer of a batch while it grows: its text piece by piece, its stop sequences, why it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from model_runtime.parameters import Sampling

FinishReason = Literal["stop", "length", "cancelled"]
Emit = Callable[[str], bool]
"""Takes a piece of text as it is generated; False says that nobody reads any more."""
_TAIL = 6
"""Tokens of context with which a piece is decoded: enough for a character of several tokens and a leading space."""


@dataclass(slots=True)
class Row:
    """One prompt to answer, tokenized. `truncated_tokens` were cut from it to fit the context window."""

    ids: list[int]
    sampling: Sampling
    max_new_tokens: int
    truncated_tokens: int = 0
    emit: Emit | None = None
    emitted: int = 0
    """Characters given to `emit` so far; a retried row goes on after them."""
    gone: bool = False
    """Set from any thread when nobody waits for the answer any more: the row ends at its next token."""


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer. `first_token_s`, `total_s`: seconds from the batch's start to the first token and to its end."""

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    input_tokens: int
    truncated_tokens: int
    first_token_s: float
    total_s: float
    batch_size: int

    @property
    def output_tokens(self) -> int:
        return len(self.tokens)


@dataclass(slots=True)
class Growing:
    """A row that is being generated. `context`: the prompt's last tokens, for a decoder-only model."""

    row: Row
    tokenizer: Any
    eos_ids: frozenset[int]
    context: Sequence[int] = ()
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finish: FinishReason | None = None
    _prefix: int = 0
    _read: int = 0
    _ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ids = list(self.context[-_TAIL:])
        self._read = len(self._ids)

    @property
    def watched(self) -> bool:
        """Whether its text is needed while it grows."""
        return self.row.emit is not None or bool(self.row.sampling.stop)

    def take(self, token: int) -> None:
        """One more token. Sets `finish` when it ends the answer."""
        self.tokens.append(token)
        if token in self.eos_ids:
            self._end("stop")
            return
        self._ids.append(token)
        if self.watched:
            self._grow(final=False)
        if self.finish is None and len(self.tokens) >= self.row.max_new_tokens:
            self._end("length")

    def cancel(self) -> None:
        """End it here, whatever it holds."""
        if self.finish is None:
            self.finish = "cancelled"

    def _end(self, reason: FinishReason) -> None:
        self._grow(final=True)
        if self.finish is None:
            self.finish = reason
            self._emit(len(self.text))

    def _grow(self, *, final: bool) -> None:
        """Decode what is new; a character whose bytes are not all there yet waits."""
        before = self._decode(self._ids[self._prefix : self._read])
        whole = self._decode(self._ids[self._prefix :])
        if not final and (len(whole) <= len(before) or whole.endswith("\ufffd")):
            return
        piece = whole[len(before) :] if whole.startswith(before) else self._decode(self._ids[self._read :])
        self._prefix, self._read = self._read, len(self._ids)
        start = len(self.text)
        self.text += piece
        if self._stopped(start):
            self._emit(len(self.text))
        elif not final:
            self._emit(len(self.text) - self._held_back())

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _stopped(self, start: int) -> bool:
        """Cut the text before the first stop sequence that ends after `start`."""
        found = [
            at for stop in self.row.sampling.stop if (at := self.text.find(stop, max(0, start - len(stop) + 1))) >= 0
        ]
        if found:
            self.text = self.text[: min(found)]
            self.finish = "stop"
        return bool(found)

    def _held_back(self) -> int:
        """Characters at the end that may be the beginning of a stop sequence."""
        longest = 0
        for stop in self.row.sampling.stop:
            for size in range(min(len(stop) - 1, len(self.text)), longest, -1):
                if self.text.endswith(stop[:size]):
                    longest = size
                    break
        return longest

    def _emit(self, upto: int) -> None:
        row = self.row
        if row.emit is None or upto <= row.emitted:
            return
        piece = self.text[row.emitted : upto]
        row.emitted = upto
        if not row.emit(piece):
            self.finish = "cancelled"
