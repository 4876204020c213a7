"""Generation: batched equals single, truncation is told, stops stop, streams add up, seeds repeat, memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from model_runtime.generate import Generator, Limits, NoMemory, is_out_of_memory
from model_runtime.load import LoadOptions, load
from model_runtime.parameters import RequestError, Sampling
from model_runtime.rows import Completion

PROMPTS = (
    "The ship",
    "Which berth is free tonight, and what does it cost for a week in the large harbour?",
    "é",
    "Translate English to German: the house is small.",
    "1 2 3",
)
GENERATIVE = ("t5", "llama", "gpt2")


@pytest.fixture(scope="session")
def generator(tiny: Callable[[str], Path]) -> Callable[..., Generator]:
    made: dict[str, Generator] = {}

    def get(kind: str, limits: Limits | None = None) -> Generator:
        if kind not in made:
            made[kind] = Generator(load(str(tiny(kind)), LoadOptions(device="cpu")), Limits(max_output_tokens=24))
        return made[kind] if limits is None else Generator(made[kind].loaded, limits)

    return get


def answers(g: Generator, prompts: Sequence[str], sampling: Sampling | None = None) -> list[Completion]:
    done = g.complete([g.prepare(p, sampling) for p in prompts])
    assert all(isinstance(d, Completion) for d in done)
    return [d for d in done if isinstance(d, Completion)]


@pytest.mark.parametrize("kind", GENERATIVE)
def test_a_batch_of_unequal_prompts_answers_as_each_alone(generator: Any, kind: str) -> None:
    g = generator(kind)
    batched = answers(g, PROMPTS)
    assert [b.tokens for b in batched] == [answers(g, [p])[0].tokens for p in PROMPTS]
    assert len({b.tokens for b in batched}) > 1, "a model that always says the same shows nothing"
    assert all(b.text for b in batched)


@pytest.mark.parametrize("kind", GENERATIVE)
def test_it_answers_as_plain_generate_does(generator: Any, kind: str) -> None:
    import torch

    g = generator(kind)
    for prompt in PROMPTS:
        inputs = g.tokenizer(prompt, return_tensors="pt")
        with torch.inference_mode():
            out = g.model.generate(inputs.input_ids, max_new_tokens=24, do_sample=False)[0]
        new = out[inputs.input_ids.shape[1] :] if kind != "t5" else out[1:]
        ours = answers(g, [prompt])[0]
        assert list(ours.tokens) == new.tolist()
        if kind == "t5":
            assert ours.text == g.tokenizer.decode(new, skip_special_tokens=True)


def test_bert_classifies_a_batch_as_each_alone(generator: Any) -> None:
    g = generator("bert")
    batched = g.classify([g.prepare(p) for p in PROMPTS])
    for prompt, scores in zip(PROMPTS, batched, strict=True):
        assert scores == pytest.approx(g.classify([g.prepare(prompt)])[0], abs=1e-5)
        assert set(scores) == {"negative", "neutral", "positive"}
        assert sum(scores.values()) == pytest.approx(1)


def test_every_row_ends_at_its_own_length(generator: Any) -> None:
    g = generator("llama")
    lengths = [1, 7, 20]
    rows = [g.prepare("The ship", Sampling(max_new_tokens=n, min_new_tokens=n)) for n in lengths]
    done = g.complete(rows)
    assert [d.output_tokens for d in done] == lengths
    assert [d.finish_reason for d in done] == ["length"] * 3
    assert done[2].tokens[:7] == done[1].tokens


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_truncation_keeps_the_right_end_and_is_told(generator: Any, kind: str) -> None:
    g = generator(kind)
    long = " ".join(str(i) for i in range(400))
    row = g.prepare(long, Sampling(max_new_tokens=8))
    whole = g.tokenizer(long, verbose=False).input_ids
    room = 128 if kind == "t5" else 120
    assert len(row.ids) == room
    assert row.truncated_tokens == len(whole) - room
    if kind == "t5":
        assert row.ids[:-1] == whole[: room - 1]
        assert row.ids[-1] == g.tokenizer.eos_token_id, "the encoder's end token stays"
    else:
        assert row.ids[-1] == whole[-1]
    assert g.complete([row])[0].truncated_tokens == row.truncated_tokens
    with pytest.raises(RequestError, match="fit the context window") as refused:
        g.prepare(long, Sampling(max_new_tokens=8), truncate=False)
    assert refused.value.code == "context_length_exceeded"


def test_an_answer_is_shortened_to_the_window_only_when_no_length_was_asked(generator: Any) -> None:
    g = generator("llama", Limits(max_output_tokens=100))
    prompt = "ab " * 40
    row = g.prepare(prompt)
    assert row.truncated_tokens == 0 or len(row.ids) >= 64
    assert len(row.ids) + row.max_new_tokens <= 128
    with pytest.raises(RequestError, match="leaves no room"):
        g.prepare(prompt, Sampling(max_new_tokens=128))


@pytest.mark.parametrize("kind", GENERATIVE)
def test_a_stream_adds_up_to_the_answer_within_a_batch(generator: Any, kind: str) -> None:
    g = generator(kind)
    plain = answers(g, PROMPTS)
    pieces: list[list[str]] = [[] for _ in PROMPTS]

    def sink(at: int) -> Callable[[str], bool]:
        def emit(piece: str) -> bool:
            pieces[at].append(piece)
            return True

        return emit

    g.complete([g.prepare(p, emit=sink(i)) for i, p in enumerate(PROMPTS)])
    assert ["".join(p) for p in pieces] == [a.text for a in plain]
    assert max(len(p) for p in pieces) > 3


def test_a_reader_that_goes_away_ends_its_row_and_no_other(generator: Any) -> None:
    g = generator("llama")
    plain = answers(g, ["The ship", "1 2 3"])
    gone, other = g.complete([g.prepare("The ship", emit=lambda _: False), g.prepare("1 2 3")])
    assert gone.finish_reason == "cancelled"
    assert gone.output_tokens < plain[0].output_tokens
    assert other.tokens == plain[1].tokens


@pytest.mark.parametrize("kind", GENERATIVE)
def test_a_stop_sequence_ends_the_text_before_it(generator: Any, kind: str) -> None:
    g = generator(kind)
    whole = answers(g, ["The ship"])[0].text
    stop = whole[6:9]
    cut = whole[: whole.index(stop)]
    pieces: list[str] = []
    row = g.prepare("The ship", Sampling(stop=(stop, "never said")), emit=lambda p: pieces.append(p) or True)
    done = g.complete([row, g.prepare("1 2 3")])[0]
    assert done.text == cut == "".join(pieces)
    assert done.finish_reason == "stop"


@pytest.mark.parametrize("kind", GENERATIVE)
def test_a_seed_repeats_and_does_not_depend_on_the_neighbours(generator: Any, kind: str) -> None:
    g = generator(kind)
    wild = Sampling(temperature=1.5, seed=7)
    alone = answers(g, ["The ship"], wild)[0].tokens
    rows = [g.prepare("1 2 3 4 5 6"), g.prepare("The ship", wild), g.prepare("The ship", Sampling(temperature=1.0))]
    together = g.complete(rows)
    assert together[1].tokens == alone
    assert together[0].tokens == answers(g, ["1 2 3 4 5 6"])[0].tokens
    others = {answers(g, ["The ship"], Sampling(temperature=1.5, seed=s))[0].tokens for s in range(5)}
    assert len(others) > 1


def test_sampling_draws_with_the_model_s_probabilities(generator: Any) -> None:
    import torch

    g = generator("llama")
    ids = torch.tensor([g.prepare("The ship").ids])
    with torch.inference_mode():
        probabilities = (g.model(ids).logits[0, -1] / 0.8).softmax(-1)
    counts = torch.zeros_like(probabilities)
    rows = [g.prepare("The ship", Sampling(temperature=0.8, seed=s, max_new_tokens=1)) for s in range(2000)]
    for at in range(0, len(rows), 250):
        for done in g.complete(rows[at : at + 250]):
            counts[done.tokens[0]] += 1
    assert float((counts / 2000 - probabilities).abs().sum() / 2) < 0.15  # total variation
    top = set(probabilities.topk(3).indices.tolist())
    for limited in (Sampling(temperature=2.0, top_k=3, max_new_tokens=1), Sampling(top_p=0.0, max_new_tokens=1)):
        for s in range(40):
            row = g.prepare("The ship", Sampling(**{**_fields(limited), "seed": s}))
            assert g.complete([row])[0].tokens[0] in top


def _fields(sampling: Sampling) -> dict[str, Any]:
    return {name: getattr(sampling, name) for name in Sampling.__slots__}


def test_penalties_stop_repetition(generator: Any) -> None:
    g = generator("t5")
    base = answers(g, ["The ship"])[0].tokens
    for penalty in (Sampling(frequency_penalty=2.0), Sampling(presence_penalty=2.0), Sampling(repetition_penalty=10.0)):
        assert len(set(answers(g, ["The ship"], penalty)[0].tokens)) > len(set(base))


class Scarce:
    """A real model whose memory holds `cells` padded tokens of prompt at once."""

    def __init__(self, model: Any, cells: int) -> None:
        self._model, self.cells, self.sizes = model, cells, list[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, **arguments: Any) -> Any:
        import torch

        rows, longest = arguments["input_ids"].shape
        self.sizes.append(rows)
        if rows * longest > self.cells:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self._model.generate(**arguments)


def test_out_of_memory_splits_the_batch_and_only_what_fits_nowhere_fails(generator: Any) -> None:
    real = generator("llama")
    g = Generator(real.loaded, Limits(max_output_tokens=24))
    g.model = Scarce(real.model, cells=100)
    prompts = ["The ship"] * 7 + ["x " * 110]
    done = g.complete([g.prepare(p, Sampling(max_new_tokens=8)) for p in prompts])
    plain = answers(real, ["The ship"], Sampling(max_new_tokens=8))[0]
    assert [d.tokens for d in done[:7]] == [plain.tokens] * 7
    assert isinstance(done[7], NoMemory)
    assert g.model.sizes[0] == 8
    assert g.memory_splits >= 3


def test_a_stream_that_is_retried_says_nothing_twice(generator: Any) -> None:
    real = generator("llama")
    g = Generator(real.loaded, Limits(max_output_tokens=24))

    class Late(Scarce):
        def generate(self, **arguments: Any) -> Any:
            import torch

            out = self._model.generate(**arguments)
            if arguments["input_ids"].shape[0] > 1:
                raise torch.OutOfMemoryError
            return out

    g.model = Late(real.model, cells=0)
    pieces: list[str] = []
    rows = [
        g.prepare("The ship", Sampling(temperature=1.2), emit=lambda p: pieces.append(p) or True),
        g.prepare("1 2 3"),
    ]
    assert g.complete(rows)[0].text == "".join(pieces)


def test_other_errors_are_not_taken_for_memory() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shape '[1]' is invalid"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_a_chat_is_put_into_the_model_s_own_template(generator: Any) -> None:
    prompt = generator("llama").chat_prompt([{"role": "user", "content": "Hi"}])
    assert prompt == "<|user|>\nHi</s>\n<|assistant|>\n"
    with pytest.raises(RequestError, match="no chat template"):
        generator("t5").chat_prompt([{"role": "user", "content": "Hi"}])
