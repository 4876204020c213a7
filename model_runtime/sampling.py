"""Choosing the next token, each row of a batch with its own parameters and its own seed.

A row's draw comes from its own generator, so its answer does not depend on its neighbours in the batch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor

from model_runtime.parameters import Sampling


class RowSampler(LogitsProcessor):  # type: ignore[misc]  # transformers is not typed
    """Applies every row's penalties and, where a row samples, leaves only the token that was drawn.

    `prompts`: the rows' prompt tokens that penalties count (none for encoder-decoders); `start`: the index of the first
    generated token. Scores are (rows, vocabulary).
    """

    def __init__(
        self, rows: Sequence[Sampling], prompts: Sequence[Sequence[int]], start: int, eos_ids: Sequence[int]
    ) -> None:
        self.rows, self.prompts, self.start, self.eos_ids = rows, prompts, start, list(eos_ids)
        self.drawing = [i for i, row in enumerate(rows) if row.temperature > 0]
        self.penalised = [
            i for i, r in enumerate(rows) if r.repetition_penalty != 1 or r.presence_penalty or r.frequency_penalty
        ]
        self.least = [row.min_new_tokens for row in rows]
        self.randoms = [random.Random(rows[i].seed) for i in self.drawing]  # noqa: S311 (no secret is drawn)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        step = input_ids.shape[1] - self.start
        early = [i for i, least in enumerate(self.least) if step < least]
        if not (early or self.penalised or self.drawing):
            return scores
        scores = scores.clone()
        if len(early) == len(self.rows):
            scores[:, self.eos_ids] = -torch.inf
        elif early:
            scores[torch.tensor(early, device=scores.device).unsqueeze(1), self.eos_ids] = -torch.inf
        for i in self.penalised:
            self._penalise(i, input_ids[i, self.start :], scores)
        if self.drawing:
            self._draw(scores)
        return scores

    def _penalise(self, i: int, generated: Any, scores: Any) -> None:
        row = self.rows[i]
        if row.repetition_penalty != 1:
            seen = torch.tensor(sorted(set(self.prompts[i])), dtype=torch.long, device=scores.device)
            seen = torch.cat([seen, generated]).unique()
            score = scores[i, seen]
            scores[i, seen] = torch.where(score < 0, score * row.repetition_penalty, score / row.repetition_penalty)
        if row.presence_penalty or row.frequency_penalty:
            tokens, counts = generated.unique(return_counts=True)
            scores[i, tokens] -= row.presence_penalty + row.frequency_penalty * counts.to(scores.dtype)

    def _draw(self, scores: Any) -> None:
        rows = [self.rows[i] for i in self.drawing]
        device, vocabulary = scores.device, scores.shape[-1]

        def column(values: list[float]) -> Any:
            return torch.tensor(values, dtype=torch.float32, device=device).unsqueeze(1)

        index = torch.tensor(self.drawing, device=device)
        ordered, tokens = scores[index].float().sort(dim=-1, descending=True, stable=True)
        # Below this a softmax is one token anyway, and the division would overflow.
        probabilities = (ordered / column([max(r.temperature, 1e-3) for r in rows])).softmax(dim=-1)
        before = probabilities.cumsum(dim=-1) - probabilities
        keep = before < column([r.top_p for r in rows])
        keep &= torch.arange(vocabulary, device=device) < column([float(r.top_k or vocabulary) for r in rows])
        keep[:, 0] = True
        cumulative = (probabilities * keep).cumsum(dim=-1)
        drawn = column([r.random() for r in self.randoms]) * cumulative[:, -1:]
        place = (cumulative <= drawn).sum(dim=-1, keepdim=True).clamp(max=vocabulary - 1)
        place = torch.minimum(place, keep.sum(dim=-1, keepdim=True) - 1)
        chosen = tokens.gather(-1, place)
        scores[index] = -torch.inf
        scores[index.unsqueeze(1), chosen] = 0.0
