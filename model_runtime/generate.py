"""One batched generation path: the handler, the local server, verify and evaluate all answer through it."""

from __future__ import annotations

import gc
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from model_runtime.load import Loaded
from model_runtime.parameters import Limits, RequestError, Sampling
from model_runtime.rows import Completion, Emit, Growing, Row
from model_runtime.sampling import RowSampler

_KEPT = (
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id",
    "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens",
)  # fmt: skip
_T = TypeVar("_T")
_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass(frozen=True, slots=True)
class NoMemory:
    """In place of an answer: not even this row alone fitted."""

    input_tokens: int


class Generator:
    """Prepares prompts and answers batches of them with one model.

    `prepare` may be called from any thread, `complete` and `classify` from one at a time.
    """

    def __init__(self, loaded: Loaded, limits: Limits | None = None) -> None:
        self.loaded, self.model, self.tokenizer = loaded, loaded.model, loaded.tokenizer
        self.limits = limits or Limits()
        self.generates = loaded.architecture != "encoder-only"
        self._lock = threading.Lock()  # a fast tokenizer keeps its truncation as state
        self.memory_splits = 0
        if self.generates:
            self._take_generation_config()

    def _take_generation_config(self) -> None:
        """Keep the model's special tokens and none of its sampling defaults: a request says how it is answered."""
        theirs = self.model.generation_config
        kept = {name: getattr(theirs, name, None) for name in _KEPT}
        if kept["eos_token_id"] is None:
            kept["eos_token_id"] = self.tokenizer.eos_token_id
        kept["pad_token_id"] = self.tokenizer.pad_token_id
        self.config = GenerationConfig(**{k: v for k, v in kept.items() if v is not None})
        self.model.generation_config = self.config
        eos = kept["eos_token_id"]
        self.eos_ids = frozenset(eos if isinstance(eos, list) else [eos] if eos is not None else [])

    @property
    def input_limit(self) -> int | None:
        """Tokens of an input at most, leaving a decoder-only model one token to answer with."""
        limits = [self.limits.max_input_tokens, self.loaded.input_window]
        if self.loaded.total_window is not None:
            limits.append(self.loaded.total_window - 1)
        known = [n for n in limits if n]
        return min(known) if known else None

    def prepare(
        self,
        text: str,
        sampling: Sampling | None = None,
        *,
        truncate: bool = True,
        special_tokens: bool = True,
        emit: Emit | None = None,
        name: str = "inputs",
    ) -> Row:
        """Tokenize `text` and fit it to the context window.

        What does not fit is cut (a decoder-only model keeps the end, the others the beginning) and counted in
        `truncated_tokens`; with `truncate` False it is refused. Raises `RequestError`.
        """
        sampling = sampling or Sampling()
        if sampling.temperature > 0 and sampling.seed is None:
            sampling = replace(sampling, seed=secrets.randbits(63))
        room, max_new = self._room(sampling, name)
        with self._lock:
            ids = self._ids(text, special_tokens, None)
            whole = len(ids)
            if room is not None and whole > room:
                if not truncate:
                    raise RequestError(
                        f"{name} has {whole:,} tokens; at most {room:,} fit the context window beside the answer",
                        code="context_length_exceeded",
                        param=name,
                    )
                ids = self._ids(text, special_tokens, room)
        if not ids:
            raise RequestError(f"{name} is empty; send some text", code="empty", param=name)
        if self.loaded.total_window is not None:
            max_new = min(max_new, self.loaded.total_window - len(ids))
        return Row(ids, sampling, max_new, whole - len(ids), emit)

    def _ids(self, text: str, special_tokens: bool, max_length: int | None) -> list[int]:
        cut: dict[str, Any] = {"truncation": True, "max_length": max_length} if max_length else {"truncation": False}
        return list(self.tokenizer(text, add_special_tokens=special_tokens, verbose=False, **cut)["input_ids"])

    def _room(self, sampling: Sampling, name: str) -> tuple[int | None, int]:
        """Tokens that an input may have, and the answer's at most."""
        limit, window = self.input_limit, self.loaded.total_window
        max_new = sampling.max_new_tokens or self.limits.max_output_tokens
        if window is None:
            return limit, max_new
        if sampling.max_new_tokens is None:
            return min(limit or window, max(1, window - min(max_new, window // 2))), max_new
        if max_new >= window:
            raise RequestError(
                f"max_new_tokens is {max_new:,}, which leaves no room for {name} in the context window of {window:,}",
                code="context_length_exceeded",
                param="max_new_tokens",
            )
        return min(limit or window, window - max_new), max_new

    def chat_prompt(self, messages: Sequence[dict[str, str]]) -> str:
        """The prompt that the model's own chat template makes of `messages`. Raises `RequestError` without one."""
        from jinja2 import TemplateError

        if not getattr(self.tokenizer, "chat_template", None):
            raise RequestError(
                "this model has no chat template, so it takes no messages; send inputs or a prompt",
                code="no_chat_template",
                param="messages",
            )
        try:
            return str(self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
        except TemplateError as error:
            raise RequestError(
                f"the model's chat template refuses these messages: {str(error)[:200]}", param="messages"
            ) from error

    def complete(self, rows: Sequence[Row]) -> list[Completion | NoMemory]:
        """Answer `rows` in one batch, in their order. Out of memory: the halves are tried, down to single rows."""
        return self._within_memory(rows, self._generate)

    def classify(self, rows: Sequence[Row]) -> list[dict[str, float] | NoMemory]:
        """The score of every label for each row: softmax, sigmoid (multi-label), or the bare value (regression)."""
        return self._within_memory(rows, self._classify)

    def run_once(self, rows: Sequence[Row]) -> list[Any]:
        """Answer or classify `rows` in one batch that is not split: memory that runs out is raised."""
        return list(self._generate(rows)) if self.generates else list(self._classify(rows))

    def _within_memory(self, rows: Sequence[Row], run: Callable[[Sequence[Row]], list[_T]]) -> list[_T | NoMemory]:
        try:
            return list(run(rows))
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not is_out_of_memory(error):
                raise
        # Outside the handler: a traceback's frames hold the tensors that have to go.
        self.memory_splits += 1
        release_memory()
        if len(rows) == 1:
            return [NoMemory(len(rows[0].ids))]
        half = len(rows) // 2
        return [*self._within_memory(rows[:half], run), *self._within_memory(rows[half:], run)]

    def _padded(self, rows: Sequence[Row]) -> tuple[Any, Any]:
        """(rows, longest) input ids and attention mask, padded on the tokenizer's side."""
        longest = max(len(r.ids) for r in rows)
        left, pad = self.tokenizer.padding_side == "left", self.tokenizer.pad_token_id
        ids, mask = [], []
        for row in rows:
            gap = longest - len(row.ids)
            ids.append([pad] * gap + row.ids if left else row.ids + [pad] * gap)
            mask.append([0] * gap + [1] * len(row.ids) if left else [1] * len(row.ids) + [0] * gap)
        device = self.model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _generate(self, rows: Sequence[Row]) -> list[Completion]:
        started = time.monotonic()
        ids, mask = self._padded(rows)
        decoder_only = self.loaded.architecture == "decoder-only"
        start = ids.shape[1] if decoder_only else 1
        growing = [Growing(r, self.tokenizer, self.eos_ids, r.ids if decoder_only else ()) for r in rows]
        watch = _Watch(growing, start, self.model.device)
        samplings = [r.sampling for r in rows]
        processors = []
        if not all(s.plain for s in samplings):
            prompts = [r.ids if decoder_only else [] for r in rows]
            processors.append(RowSampler(samplings, prompts, start, sorted(self.eos_ids)))
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max(r.max_new_tokens for r in rows),
                do_sample=False,
                logits_processor=processors,
                stopping_criteria=StoppingCriteriaList([watch]),
            )
        total = time.monotonic() - started
        for grown, tokens in zip(growing, out[:, start:].tolist(), strict=True):
            for token in tokens[len(grown.tokens) :]:
                if grown.finish is not None:
                    break
                grown.take(token)
        first = (watch.first or time.monotonic()) - started
        return [
            Completion(
                text=grown.text,
                tokens=tuple(grown.tokens),
                finish_reason=grown.finish or "length",
                input_tokens=len(row.ids),
                truncated_tokens=row.truncated_tokens,
                first_token_s=first,
                total_s=total,
                batch_size=len(rows),
            )
            for row, grown in zip(rows, growing, strict=True)
        ]

    def _classify(self, rows: Sequence[Row]) -> list[dict[str, float]]:
        ids, mask = self._padded(rows)
        with torch.inference_mode():
            logits = self.model(input_ids=ids, attention_mask=mask).logits.float()
        config = self.model.config
        if config.problem_type == "regression" or config.num_labels == 1:
            scores = logits
        elif config.problem_type == "multi_label_classification":
            scores = logits.sigmoid()
        else:
            scores = logits.softmax(dim=-1)
        if not torch.isfinite(scores).all():
            raise RequestError(
                f"the model's scores are no numbers in {self.loaded.dtype}; load it in bf16 or fp32",
                status=500,
                code="not_finite",
            )
        names = [str(config.id2label.get(i, i)) for i in range(scores.shape[-1])]
        return [dict(zip(names, row, strict=True)) for row in scores.tolist()]


class _Watch(StoppingCriteria):  # type: ignore[misc]  # transformers is not typed
    """Sees every step: notes the first token, feeds the rows whose text is read, ends each row at its own length."""

    def __init__(self, growing: Sequence[Growing], start: int, device: Any) -> None:
        self.growing, self.start = growing, start
        self.first: float | None = None
        self.watched = [i for i, g in enumerate(growing) if g.watched]
        lengths = [g.row.max_new_tokens for g in growing]
        self.equal = len(set(lengths)) == 1
        self.lengths = torch.tensor(lengths, device=device)
        self.nothing = torch.zeros(len(growing), dtype=torch.bool, device=device)

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **_: Any) -> Any:  # noqa: ARG002
        if self.first is None:
            self.first = time.monotonic()
        done = self.nothing if self.equal else self.lengths <= input_ids.shape[1] - self.start
        ended = []
        if self.watched:
            tokens = input_ids[:, -1].tolist()
            for i in self.watched:
                grown = self.growing[i]
                if grown.finish is None:
                    grown.take(tokens[i])
                if grown.finish is not None:
                    ended.append(i)
        for i, grown in enumerate(self.growing):
            if grown.row.gone:
                grown.cancel()
                ended.append(i)
        if ended:
            done = done.clone()
            done[ended] = True
        return done


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out: torch's own class, or the words of a CPU allocator or of cuBLAS."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign.lower() in words for sign in _MEMORY_SIGNS)


def release_memory() -> None:
    """Give back what the caching allocator holds, so that a retry starts from the weights alone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
