"""Tiny models, built from a configuration with a tokenizer trained on the spot: they load, serve and stream as large
ones do, in seconds and without a download, and answer nonsense. For tests, the demo and trying things on a laptop."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_runtime.progress import without_bars

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KINDS = ("t5", "llama", "gpt2", "bert")
"""Encoder-decoder; decoder-only with rotary positions; decoder-only with learned positions; a classifier."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_CORPUS = (
    "The ship leaves the harbour at dawn and returns with the tide.",
    "A customer asks for a refund; the agent answers within two hours.",
    "Summarize the following document in three sentences.",
    "Translate English to German: the house is small, but the garden is large.",
    "Which berth is free tonight, and what does it cost for a week?",
    "Große Schiffe brauchen tiefes Wasser. Les petits bateaux restent au port.",
    "Numbers: 0 1 2 3 4 5 6 7 8 9, 3.14, 1,000,000 and 24/7.",
    '{"inputs": "text", "parameters": {"max_new_tokens": 16, "temperature": 0.7}}',
)


def build(
    kind: str,
    folder: Path,
    *,
    hidden_size: int = 32,
    layers: int = 2,
    vocab_size: int = 384,
    context_window: int = 128,
    seed: int = 0,
    safe_serialization: bool = True,
    t5_embedding_std: float = 0.05,
) -> Path:
    """Write a tiny model of `kind` (one of `KINDS`) with random weights in fp32 and its tokenizer into `folder`.

    `vocab_size` is at least 300 (256 bytes and the special tokens). Returns `folder`. The same arguments give the same
    weights.

    T5 draws its embeddings with a standard deviation of 1 (`T5PreTrainedModel._init_weights`) and adds them unscaled to
    what its layers say. Tied as they are, a model that was never trained then repeats its start token for ever; at 0.05
    it answers. Training wants `t5_embedding_std=1`: below that what a token is drowns in the layers' noise, and the
    model hardly learns.
    """
    import torch

    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; one of {', '.join(KINDS)}")
    if vocab_size < 300:
        raise ValueError(f"vocab_size is {vocab_size}; at least 300")
    tokenizer = _tokenizer(kind, vocab_size, context_window)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        model = _model(kind, hidden_size, layers, vocab_size, context_window)
        if kind == "t5":
            model.shared.weight.data.mul_(t5_embedding_std)
    finally:
        torch.random.set_rng_state(state)
    folder.mkdir(parents=True, exist_ok=True)
    if safe_serialization:
        # Saving imports DeepSpeed where it is installed, which says on stdout that it has found no accelerator.
        with without_bars(), contextlib.redirect_stdout(sys.stderr):
            model.save_pretrained(folder)
    else:
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(kind: str, vocab_size: int, context_window: int) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "</s>", "<s>", "<unk>", *(["[CLS]", "[SEP]"] if kind == "bert" else [])]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(list(_CORPUS) * 4, trainer)
    names: dict[str, Any] = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    if kind == "t5":
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    elif kind == "llama":
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
        names |= {"bos_token": "<s>"}
    elif kind == "bert":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 4), ("[SEP]", 5)]
        )
        names |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    else:
        names |= {"bos_token": "</s>"}
        del names["pad_token"]  # as GPT-2's own: whoever pads has to choose
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=context_window, clean_up_tokenization_spaces=False, **names
    )
    if kind == "llama":
        fast.chat_template = CHAT_TEMPLATE
    return fast


def _model(kind: str, hidden_size: int, layers: int, vocab_size: int, context_window: int) -> Any:
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        T5Config,
        T5ForConditionalGeneration,
    )

    heads = 4
    if kind == "t5":
        return T5ForConditionalGeneration(
            T5Config(
                vocab_size=vocab_size,
                d_model=hidden_size,
                d_kv=hidden_size // heads,
                d_ff=hidden_size * 2,
                num_layers=layers,
                num_heads=heads,
                feed_forward_proj="gated-gelu",
                pad_token_id=0,
                eos_token_id=1,
                decoder_start_token_id=0,
                n_positions=context_window,
            )
        ).eval()
    if kind == "llama":
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocab_size,
                hidden_size=hidden_size,
                intermediate_size=hidden_size * 2,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_key_value_heads=heads // 2,
                max_position_embeddings=context_window,
                pad_token_id=0,
                eos_token_id=1,
                bos_token_id=2,
                initializer_range=0.2,
            )
        ).eval()
    if kind == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocab_size,
                n_positions=context_window,
                n_embd=hidden_size,
                n_layer=layers,
                n_head=heads,
                bos_token_id=1,
                eos_token_id=1,
                initializer_range=0.2,
            )
        ).eval()
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            intermediate_size=hidden_size * 2,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=context_window,
            pad_token_id=0,
            num_labels=3,
            id2label={0: "negative", 1: "neutral", 2: "positive"},
            label2id={"negative": 0, "neutral": 1, "positive": 2},
            initializer_range=0.2,
        )
    ).eval()


def main() -> None:
    """`python -m model_runtime.tiny KIND FOLDER`: write a tiny model, to try things with."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m model_runtime.tiny", description=main.__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    print(build(asked.kind, asked.folder))  # noqa: T201


if __name__ == "__main__":
    main()
