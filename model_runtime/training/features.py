"""Examples to tokens: what the model reads, what it is to say, which positions count in the loss."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model_runtime.data.examples import Example
from model_runtime.errors import ModelError
from model_runtime.load import Architecture

IGNORED = -100
"""The label of a position that is left out of the loss (torch's cross entropy)."""
Feature = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Encoded:
    """`features` in the examples' order; `cut` were longer than the window, `dropped` lost their answer to it."""

    features: list[Feature]
    cut: int
    dropped: int


def length_of(feature: Feature) -> int:
    """Tokens by which an example is long: of its input, and of a target that is apart from it."""
    labels = feature["labels"]
    return max(len(feature["input_ids"]), 0 if isinstance(labels, int) else len(labels))


@dataclass(frozen=True, slots=True)
class Encoder:
    """Cuts examples into tokens for one model. `max_input`, `max_target`: tokens; a decoder-only model's `max_input` is
    that of prompt and answer together. `label_ids`: class name -> id."""

    tokenizer: Any
    architecture: Architecture
    max_input: int
    max_target: int
    prompt: str = "{input}"
    label_ids: dict[str, int] | None = None

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """All examples. One whose answer does not fit beside its prompt at all is dropped and counted."""
        features: list[Feature] = []
        cut = dropped = 0
        for example in examples:
            made, was_cut = self._one(example)
            cut += was_cut
            if made is None:
                dropped += 1
            else:
                features.append(made)
        if not features:
            raise ModelError("no example fits the context window; raise max_input_tokens or shorten the data")
        return Encoded(features, cut, dropped)

    def prompted(self, text: str) -> str:
        return self.prompt.replace("{input}", text)

    def _one(self, example: Example) -> tuple[Feature | None, bool]:
        if self.architecture == "encoder-only":
            read, cut = self._cut(self._ids(self.prompted(example.input)), self.max_input)
            if self.label_ids is None:
                raise ModelError("a classifier needs the classes of its data")
            return {"input_ids": read, "labels": self.label_ids[example.target]}, cut
        if self.architecture == "encoder-decoder":
            if example.form in ("causal", "chat"):
                raise ModelError(f"an encoder-decoder learns from input and target, not from {example.form}")
            read, cut = self._cut(self._ids(self.prompted(example.input)), self.max_input)
            said, short = self._cut(self._ids(example.target), self.max_target)
            return {"input_ids": read, "labels": said}, cut or short
        return self._decoder_only(example)

    def _decoder_only(self, example: Example) -> tuple[Feature | None, bool]:
        if example.form == "chat":
            ids, labels = self._chat(example)
        elif example.form == "causal":
            ids = self._ended(self._ids(example.target))
            labels = list(ids)
        else:
            # As at inference: the prompt by itself, then what the model says.
            prompt = self._ids(self.prompted(example.input))
            answer = self._ended(self.tokenizer(example.target, add_special_tokens=False, verbose=False)["input_ids"])
            if self.max_target:
                answer = answer[: self.max_target]
            room = self.max_input - len(answer)
            cut = len(prompt) > room
            if cut:
                if room < 1:
                    return None, True
                prompt = prompt[-room:]  # a prompt's end is what is answered
            return {"input_ids": [*prompt, *answer], "labels": [IGNORED] * len(prompt) + answer}, cut
        cut = len(ids) > self.max_input
        ids, labels = ids[: self.max_input], labels[: self.max_input]
        if all(label == IGNORED for label in labels[1:]):
            return None, cut
        return {"input_ids": ids, "labels": labels}, cut

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=True, verbose=False)["input_ids"])

    def _ended(self, ids: Sequence[int]) -> list[int]:
        """With the end token, which the model must learn to say."""
        eos = self.tokenizer.eos_token_id
        return list(ids) if eos is None or (ids and ids[-1] == eos) else [*ids, eos]

    def _cut(self, ids: list[int], limit: int) -> tuple[list[int], bool]:
        """Cut in the middle of the text, not of the tokenizer's closing token."""
        if len(ids) <= limit:
            return ids, False
        closing = {self.tokenizer.eos_token_id, self.tokenizer.sep_token_id} - {None}
        return ([*ids[: limit - 1], ids[-1]] if ids[-1] in closing else ids[:limit]), True

    def _chat(self, example: Example) -> tuple[list[int], list[int]]:
        """The chat template's text; of it the assistant's words, with what ends them, are learned."""
        if not getattr(self.tokenizer, "chat_template", None):
            raise ModelError("the model has no chat template, so it cannot learn from messages; give input and target")
        messages = [{"role": m.role, "content": m.content} for m in example.messages]
        whole = self._render(messages, answer=False)
        spans = []
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before, after = self._render(messages[:i], answer=True), self._render(messages[: i + 1], answer=False)
            if not (after.startswith(before) and whole.startswith(after)):
                raise ModelError(
                    "the model's chat template writes a message differently when others follow, so what the assistant "
                    "says cannot be told apart; give input and target"
                )
            spans.append((len(before), len(after)))
        encoded = self.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids = list(encoded["input_ids"])
        labels = [
            token if any(start <= begin < end for start, end in spans) else IGNORED
            for token, (begin, _) in zip(ids, encoded["offset_mapping"], strict=True)
        ]
        return ids, labels

    def _render(self, messages: list[dict[str, str]], *, answer: bool) -> str:
        from jinja2 import TemplateError

        if not messages:
            return ""
        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer))
        except TemplateError as error:
            raise ModelError(f"the model's chat template refuses a conversation: {str(error)[:200]}") from error


def pack(features: Sequence[Feature], limit: int) -> list[Feature]:
    """Several sequences in one row of up to `limit` tokens, each whole: the longest first, each where it fits best
    (best-fit decreasing).

    `position_ids` begin anew with each, by which transformers keeps their attention apart; the first label of each is
    left out, because what precedes it is another sequence.
    """
    order = sorted(range(len(features)), key=lambda i: -len(features[i]["input_ids"]))
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # (tokens left, row), ascending
    for i in order:
        size = len(features[i]["input_ids"])
        at = bisect_left(open_rows, (size, -1))
        if at < len(open_rows):
            left, place = open_rows.pop(at)
        else:
            left, place = limit, len(rows)
            rows.append([])
        rows[place].append(i)
        insort(open_rows, (left - size, place))
    packed = []
    for row in sorted(sorted(row) for row in rows):
        ids = [t for i in row for t in features[i]["input_ids"]]
        labels = [t for i in row for t in (IGNORED, *features[i]["labels"][1:])]
        positions = [p for i in row for p in range(len(features[i]["input_ids"]))]
        packed.append({"input_ids": ids, "labels": labels, "position_ids": positions})
    return packed


@dataclass(frozen=True, slots=True)
class Collator:
    """A batch of tensors of (rows, longest); padding is masked and left out of the loss. A batch of packed rows has no
    mask: where a position falls back to 0 another sequence begins, so padding is a row of its own sequences."""

    pad_id: int

    def __call__(self, features: Sequence[Feature]) -> dict[str, Any]:
        import torch

        longest = max(len(f["input_ids"]) for f in features)
        batch: dict[str, Any] = {
            "input_ids": torch.tensor([_padded(f["input_ids"], longest, self.pad_id) for f in features])
        }
        if "position_ids" in features[0]:
            batch["position_ids"] = torch.tensor([_padded(f["position_ids"], longest, 0) for f in features])
        else:
            batch["attention_mask"] = torch.tensor([_padded([1] * len(f["input_ids"]), longest, 0) for f in features])
        if isinstance(features[0]["labels"], int):
            batch["labels"] = torch.tensor([f["labels"] for f in features])
        else:
            widest = max(len(f["labels"]) for f in features)
            batch["labels"] = torch.tensor([_padded(f["labels"], widest, IGNORED) for f in features])
        return batch


def _padded(values: Sequence[int], size: int, fill: int) -> list[int]:
    return [*values, *[fill] * (size - len(values))]
