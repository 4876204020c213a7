"""Examples to tokens: what counts in the loss, where a window cuts, packing that changes no loss, the fixed order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from model_runtime.data.examples import Example, Message
from model_runtime.errors import ModelError
from model_runtime.training.features import IGNORED, Collator, Encoder, pack
from model_runtime.training.models import tokenizer_of
from model_runtime.training.order import EpochOrder

PAIR = Example(1, "seq2seq", "the ship leaves", "harbour at dawn")


def learned(feature: dict[str, Any], tokenizer: Any) -> str:
    return str(tokenizer.decode([t for t in feature["labels"] if t != IGNORED]))


def test_an_encoder_decoder_reads_input_and_says_target(tiny: Any) -> None:
    tokenizer = tokenizer_of(tiny("t5"))
    made = Encoder(tokenizer, "encoder-decoder", 64, 64, prompt="say: {input}").encode([PAIR])
    feature = made.features[0]
    assert tokenizer.decode(feature["input_ids"]) == "say: the ship leaves</s>"
    assert learned(feature, tokenizer) == "harbour at dawn</s>"
    short = Encoder(tokenizer, "encoder-decoder", 5, 3).encode([PAIR])
    assert (short.cut, short.dropped) == (1, 0)
    assert [len(short.features[0][k]) for k in ("input_ids", "labels")] == [5, 3]
    assert short.features[0]["labels"][-1] == tokenizer.eos_token_id, "a cut target still ends"
    with pytest.raises(ModelError, match="not from chat"):
        Encoder(tokenizer, "encoder-decoder", 9, 9).encode([Example(1, "chat", messages=(Message("user", "a"),))])


def test_a_decoder_only_model_learns_the_answer_and_its_end(tiny: Any) -> None:
    tokenizer = tokenizer_of(tiny("llama"))
    feature = Encoder(tokenizer, "decoder-only", 64, 0).encode([PAIR]).features[0]
    assert tokenizer.decode(feature["input_ids"]) == "<s>the ship leavesharbour at dawn</s>"
    assert learned(feature, tokenizer) == "harbour at dawn</s>"
    assert len(feature["input_ids"]) == len(feature["labels"])


def test_a_prompt_that_is_too_long_loses_its_beginning_and_an_answer_never(tiny: Any) -> None:
    tokenizer = tokenizer_of(tiny("llama"))
    whole = Encoder(tokenizer, "decoder-only", 64, 0).encode([PAIR]).features[0]
    answer = [t for t in whole["labels"] if t != IGNORED]
    cut = Encoder(tokenizer, "decoder-only", len(answer) + 2, 0).encode([PAIR])
    assert cut.cut == 1
    assert cut.features[0]["input_ids"] == whole["input_ids"][-len(answer) - 2 :]
    assert [t for t in cut.features[0]["labels"] if t != IGNORED] == answer
    with pytest.raises(ModelError, match="no example fits"):
        Encoder(tokenizer, "decoder-only", len(answer), 0).encode([PAIR])


def test_of_a_chat_only_the_assistants_words_are_learned(tiny: Any) -> None:
    tokenizer = tokenizer_of(tiny("llama"))
    chat = Example(1, "chat", messages=(
        Message("system", "be kind"), Message("user", "the ship?"), Message("assistant", "it leaves"),
        Message("user", "when?"), Message("assistant", "at dawn"),
    ))  # fmt: skip
    feature = Encoder(tokenizer, "decoder-only", 128, 0).encode([chat]).features[0]
    assert learned(feature, tokenizer) == "it leaves</s>\nat dawn</s>\n"
    with pytest.raises(ModelError, match="no chat template"):
        Encoder(tokenizer_of(tiny("gpt2")), "decoder-only", 128, 0).encode([chat])


def test_a_classifier_learns_its_label(tiny: Any) -> None:
    encoder = Encoder(tokenizer_of(tiny("bert")), "encoder-only", 6, 0, label_ids={"bad": 0, "good": 1})
    made = encoder.encode([Example(1, "classification", "the ship leaves the harbour", "good")])
    assert (made.features[0]["labels"], made.cut, len(made.features[0]["input_ids"])) == (1, 1, 6)
    assert made.features[0]["input_ids"][-1] == 5, "[SEP] stays"


sequences = st.lists(st.integers(1, 12), min_size=1, max_size=40)


@given(sequences)
def test_packing_keeps_every_sequence_whole(sizes: list[int]) -> None:
    features = [{"input_ids": [i] * n, "labels": [i] * n} for i, n in enumerate(sizes)]
    rows = pack(features, 12)
    assert all(len(row["input_ids"]) <= 12 for row in rows)
    found: list[tuple[int, int]] = []
    for row in rows:
        starts = [at for at, p in enumerate(row["position_ids"]) if p == 0]
        for start, end in zip(starts, [*starts[1:], len(row["input_ids"])], strict=True):
            ids = row["input_ids"][start:end]
            assert len(set(ids)) == 1
            assert row["position_ids"][start:end] == list(range(len(ids)))
            assert row["labels"][start:end] == [IGNORED, *ids[1:]]
            found.append((ids[0], len(ids)))
    assert sorted(found) == list(enumerate(sizes))
    assert len(rows) <= 2 * -(-sum(sizes) // 12)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_packing_changes_no_loss(tiny: Any, kind: str) -> None:
    tokenizer = tokenizer_of(tiny(kind))
    model = AutoModelForCausalLM.from_pretrained(tiny(kind)).eval()
    model.config.use_cache = False
    texts = ["the ship leaves", "a customer asks for a refund at dawn", "tide", "harbour and garden"]
    features = Encoder(tokenizer, "decoder-only", 64, 0).encode(
        [Example(i, "causal", target=t) for i, t in enumerate(texts)]
    ).features  # fmt: skip
    collate = Collator(tokenizer.pad_token_id)

    def total(batch: dict[str, Any]) -> tuple[float, int]:
        count = int((batch["labels"][:, 1:] != IGNORED).sum())
        with torch.no_grad():
            return float(model(**batch).loss) * count, count

    plain = [total(collate([f])) for f in features]
    loss, count = total(collate(pack(features, 40)))
    assert count == sum(n for _, n in plain)
    assert loss == pytest.approx(sum(x for x, _ in plain), rel=1e-5)


@given(st.integers(1, 70), st.integers(1, 16), st.booleans(), st.integers(0, 3))
def test_an_epoch_holds_every_example_in_whole_batches(count: int, batch: int, grouped: bool, epoch: int) -> None:
    lengths = [i % 7 + 1 for i in range(count)] if grouped else None
    order = EpochOrder(count, batch, seed=1, lengths=lengths)
    indices = order.indices(epoch)
    assert len(indices) == len(order) == -(-count // batch) * batch
    seen = Counter(indices)
    assert set(seen) == set(range(count))
    assert max(seen.values()) - min(seen.values()) <= 1
    assert indices == EpochOrder(count, batch, seed=1, lengths=lengths).indices(epoch)


def test_epochs_and_seeds_differ_and_like_lengths_come_together() -> None:
    lengths = [(i * 37) % 100 + 1 for i in range(1000)]
    plain, grouped = EpochOrder(1000, 20, 0), EpochOrder(1000, 20, 0, lengths)
    assert plain.indices(0) != plain.indices(1)
    assert plain.indices(0) != EpochOrder(1000, 20, 1).indices(0)

    def padded(indices: list[int]) -> int:
        batches = [indices[i : i + 20] for i in range(0, len(indices), 20)]
        return sum(20 * max(lengths[i] for i in batch) for batch in batches)

    assert padded(grouped.indices(0)) < 1.1 * sum(lengths) < padded(plain.indices(0))
    firsts = [grouped.indices(e)[0] for e in range(8)]
    assert len({lengths[i] for i in firsts}) > 3, "long batches do not all come first"


def test_padding_is_left_out() -> None:
    batch = Collator(9)([{"input_ids": [1, 2], "labels": [1, 2]}, {"input_ids": [3], "labels": [3]}])
    assert batch["input_ids"].tolist() == [[1, 2], [3, 9]]
    assert batch["labels"].tolist() == [[1, 2], [3, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_the_tokenizer_of_a_folder_without_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="tokenizer cannot be read"):
        tokenizer_of(tmp_path)
