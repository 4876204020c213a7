"""Metrics of predictions against references, each as statistics that add up, so that a bootstrap can resample them.

Exact match and token F1 as in SQuAD (Rajpurkar et al. 2016, arXiv:1606.05250); ROUGE by rouge-score (Lin 2004); BLEU
and chrF by sacreBLEU (Post 2018, arXiv:1804.08771), all over the corpus where the metric is one of a corpus.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float64]
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = set(string.punctuation)


@dataclass(frozen=True, slots=True)
class Score:
    """`rows`: one row of statistics an example; `value` of their sum is the metric. `higher` is better, or lower."""

    name: str
    rows: Rows
    value: Callable[[Rows], float]
    higher: bool = True

    @property
    def result(self) -> float:
        return self.value(self.rows.sum(axis=0))


def _mean(total: Rows) -> float:
    return float(total[0] / total[1])


def mean_score(name: str, values: Sequence[float], *, higher: bool = True) -> Score:
    """A metric that is the mean of the examples' own."""
    return Score(name, np.array([[v, 1.0] for v in values]), _mean, higher)


def squad_words(text: str) -> list[str]:
    """Words as SQuAD's evaluation has them: lower case, without punctuation and English articles."""
    plain = "".join(c for c in text.lower() if c not in _PUNCTUATION)
    return _ARTICLES.sub(" ", plain).split()


def token_f1(prediction: str, reference: str) -> float:
    """Harmonic mean of the words' precision and recall, 0 to 1; of two empty texts 1."""
    said, wanted = squad_words(prediction), squad_words(reference)
    if not said or not wanted:
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted))


def text_scores(predictions: Sequence[str], references: Sequence[str]) -> list[Score]:
    """Exact match, token F1, ROUGE-1/2/L (F1) in parts of 1; BLEU and chrF from 0 to 100."""
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU, CHRF

    pairs = list(zip(predictions, references, strict=True))
    scores = [
        mean_score("exact_match", [float(p.strip() == r.strip()) for p, r in pairs]),
        mean_score("token_f1", [token_f1(p, r) for p, r in pairs]),
    ]
    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(list(kinds), use_stemmer=False, tokenizer=_Words())
    found = [scorer.score(r, p) for p, r in pairs]
    scores += [mean_score(kind.replace("L", "_l"), [f[kind].fmeasure for f in found]) for kind in kinds]
    # sacreBLEU's statistics of single sentences add up to those of the corpus; it offers no public way to them.
    for name, metric in (("bleu", BLEU(effective_order=False)), ("chrf", CHRF())):
        rows = np.array(metric._extract_corpus_statistics(list(predictions), [list(references)]), dtype=np.float64)
        scores.append(Score(name, rows, _corpus(metric)))
    return scores


class _Words:
    """Words of any script; rouge-score's own tokenizer drops everything but a to z and digits."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"\w+", text.lower())


def _corpus(metric: Any) -> Callable[[Rows], float]:
    return lambda total: float(metric._compute_score_from_stats([int(n) for n in total]).score)


def label_scores(predictions: Sequence[str], references: Sequence[str]) -> list[Score]:
    """Accuracy, and the mean of the classes' F1 (macro-F1) over the classes that the references have."""
    pairs = list(zip(predictions, references, strict=True))
    classes = sorted(set(references))
    # True positives, predicted and actual of each class: what F1 is made of.
    rows = np.array(
        [[float(x) for c in classes for x in (p == r == c, p == c, r == c)] for p, r in pairs], dtype=np.float64
    )

    def macro(total: Rows) -> float:
        hit, said, wanted = total[0::3], total[1::3], total[2::3]
        there = wanted > 0
        whole = said + wanted
        f1 = np.divide(2 * hit, whole, out=np.zeros_like(hit), where=whole > 0)
        return float(f1[there].mean())

    return [mean_score("accuracy", [float(p == r) for p, r in pairs]), Score("macro_f1", rows, macro)]


def perplexity_score(losses: Sequence[tuple[float, int]]) -> Score:
    """exp of the mean loss of a token, from each example's (sum of losses in nats, tokens)."""
    return Score("perplexity", np.array(losses, dtype=np.float64), lambda t: float(np.exp(t[0] / t[1])), higher=False)
