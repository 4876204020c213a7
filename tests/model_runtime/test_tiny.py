"""The tiny models are models: they load as any other, and the same seed gives the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from model_runtime.tiny import KINDS, build


@pytest.mark.parametrize("kind", KINDS)
def test_a_tiny_model_loads_by_its_folder_alone(tiny: Callable[[str], Path], kind: str) -> None:
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(tiny(kind))
    tokenizer = AutoTokenizer.from_pretrained(tiny(kind))
    assert config.model_type == kind
    assert len(tokenizer) <= config.vocab_size
    text = "Große ships, 24/7 {“ok”}"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    first, again, other = (
        (build("gpt2", tmp_path / name, seed=seed) / "model.safetensors").read_bytes()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again
    assert first != other


def test_a_pickle_only_model_has_no_safetensors(tmp_path: Path) -> None:
    folder = build("llama", tmp_path / "old", safe_serialization=False)
    assert (folder / "pytorch_model.bin").is_file()
    assert not list(folder.glob("*.safetensors"))
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


@pytest.mark.parametrize(("kind", "vocab_size"), [("bart", 384), ("t5", 100)])
def test_what_cannot_be_built_is_refused(tmp_path: Path, kind: str, vocab_size: int) -> None:
    with pytest.raises(ValueError, match=r"kind is|vocab_size is"):
        build(kind, tmp_path, vocab_size=vocab_size)
