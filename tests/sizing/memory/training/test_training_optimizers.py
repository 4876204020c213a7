"""Optimizer states from the tensors' shapes."""

from __future__ import annotations

import pytest

from sizing.memory.training.optimizers import state_bytes, step_work
from sizing.memory.training.setup import TrainingSetup
from sizing.memory.training.trained import adapters, lora_targets, trained_groups, trained_numel
from sizing.models.catalogue import load_catalogue

MATRIX, VECTOR, EMBEDDING = ((1024, 4096), 3, False), ((1024,), 2, False), ((32_000, 1024), 1, True)
SHAPES = (MATRIX, VECTOR, EMBEDDING)
NUMEL = 3 * 1024 * 4096 + 2 * 1024 + 32_000 * 1024


@pytest.mark.parametrize(("optimizer", "moments"), [("adamw", 2), ("sgd", 1), ("lion", 1)])
@pytest.mark.parametrize("width", [2, 4])
def test_full_size_moments(optimizer, moments, width):
    assert state_bytes(optimizer, SHAPES, width) == moments * width * NUMEL


def test_adafactor_keeps_a_row_and_a_column_of_each_matrix():
    expected = 3 * 4 * (1024 + 4096) + 2 * 4 * 1024 + 4 * (32_000 + 1024)
    assert state_bytes("adafactor", SHAPES, 4) == expected
    # A stack of matrices (experts) is factored in its last two dimensions.
    assert state_bytes("adafactor", (((8, 16, 32), 1, False),), 4) == 4 * 8 * (16 + 32)


def test_eight_bit_states_have_a_scale_a_block_and_spare_small_tensors_and_embeddings():
    numel = 1024 * 4096
    assert state_bytes("adamw8bit", (MATRIX,), 4) == 3 * (2 * numel + 2 * 4 * numel // 256)
    assert state_bytes("adamw8bit", (VECTOR,), 4) == 2 * 8 * 1024
    assert state_bytes("adamw8bit", (EMBEDDING,), 4) == 8 * 32_000 * 1024


def test_a_step_needs_no_room_fused_and_one_more_state_for_each():
    assert step_work("adamw", SHAPES, 4, "fused") == 0
    assert step_work("adamw", SHAPES, 4, "foreach") == 4 * NUMEL
    assert step_work("adamw", SHAPES, 4, "loop") == 2 * 4 * 32_000 * 1024
    assert step_work("adamw", (), 4, "foreach") == 0


def test_lora_counts_what_peft_prints():
    catalogue = load_catalogue()
    # PEFT's MetaMathQA comparison prints trainable=18,350,080 for rank 64 on the query and value of Llama-3.2-3B.
    setup = TrainingSetup(method="lora", lora_rank=64)
    assert trained_numel(catalogue["meta-llama/Llama-3.2-3B"], setup) == 18_350_080
    # litgpt's tables say 4,194,304 for rank 8 on Llama-2-7B.
    assert trained_numel(catalogue["meta-llama/Llama-2-7b-hf"], TrainingSetup(method="lora", lora_rank=8)) == 4_194_304


def test_lora_targets_are_pefts_defaults_or_all_linear_layers():
    catalogue = load_catalogue()
    t5, llama = catalogue["google/flan-t5-base"], catalogue["meta-llama/Llama-3.2-3B"]
    assert lora_targets(t5, TrainingSetup(method="lora")) == ("q", "v")
    everything = lora_targets(llama, TrainingSetup(method="lora", lora_targets=("all-linear",)))
    assert set(everything) == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert all("lm_head" not in a.name for a in adapters(llama, TrainingSetup(method="lora", lora_targets=everything)))


def test_trained_embeddings_are_copies_in_the_bases_type():
    model = load_catalogue()["Qwen/Qwen-1_8B"]
    setup = TrainingSetup(method="lora", lora_targets=("c_attn",), train_embeddings=True)
    added, copied = trained_groups(model, setup, base=2, adapter=4)
    assert (added.width, copied.width) == (4, 2)
    assert copied.numel == 2 * model.vocab_size * model.hidden_size
