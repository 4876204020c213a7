"""The tape: what autograd keeps, and what comes and goes, on sizes small enough to add up by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizing.memory.training.ops import Ops
from sizing.memory.training.recipe import Recipe
from sizing.memory.training.tape import Tape

FULL = Recipe(weights=2, kept=2, stream=2)
FROZEN = Recipe(weights=2, kept=2, stream=2, full=False, norms_trained=False)


def test_a_product_keeps_both_factors_and_a_sum_nothing():
    tape = Tape()
    x, y = tape.var(10, 2), tape.var(10, 2)
    product = tape.measure((x, y), tape.mul(x, y), counted=(x, y))
    assert product.saved == {"activations": 40}

    tape = Tape()
    x, y = tape.var(10, 2), tape.var(10, 2)
    assert tape.measure((x, y), tape.add(x, y), counted=(x, y)).saved == {}


def test_a_factor_without_gradient_spares_the_other():
    tape = Tape()
    x, constant = tape.var(10, 2), tape.var(10, 2, grad=False)
    # The gradient of x is the constant times the incoming gradient: x itself is not needed.
    assert tape.measure((x, constant), tape.mul(x, constant), counted=(x, constant)).saved == {"activations": 20}
    tape = Tape()
    x, constant = tape.var(10, 2), tape.var(10, 2, grad=False)
    assert tape.measure((x, constant), tape.mul(x, constant), counted=(x,)).saved == {}


def test_slices_of_one_tensor_share_its_memory():
    tape = Tape()
    fused = tape.keep_input(tape.var(30, 2))
    q, k, _ = tape.split(fused, 10, 10, 10)
    out = tape.mul(q, k)
    # The input of the first map (60 bytes, not counted: it comes from outside) and the fused tensor once.
    assert tape.measure((), out).saved == {"activations": 60 + 60}


def test_a_trained_linear_keeps_its_input_and_a_frozen_one_does_not():
    for recipe, kept, gradient in ((FULL, 8 * 4 * 2, 4 * 6 * 2), (FROZEN, 0, 0)):
        ops = Ops(recipe)
        x = ops.var(8 * 4, 2)
        found = ops.measure((x,), ops.linear("q_proj", x, 6, 4), counted=(x,))
        assert found.saved_bytes == kept
        assert found.weight_grads == gradient
        assert found.output == 8 * 6 * 2


def test_an_adapter_keeps_its_fp32_input_and_its_small_product():
    recipe = Recipe(
        weights=2, kept=2, stream=2, full=False, norms_trained=False, targets=("q_proj",), rank=2, adapter=4
    )
    ops = Ops(recipe)
    x = ops.var(8 * 4, 2)
    adapted = ops.measure((x,), ops.linear("q_proj", x, 6, 4), counted=(x,))
    assert adapted.saved_bytes == 8 * 4 * 4 + 8 * 2 * 4
    assert adapted.weight_grads == (4 * 2 + 6 * 2) * 4
    other = Ops(recipe)
    x = other.var(8 * 4, 2)
    assert other.measure((x,), other.linear("k_proj", x, 6, 4), counted=(x,)).saved_bytes == 0


def test_autocast_casts_the_input_anew_for_every_layer_and_keeps_the_weights_copy():
    ops = Ops(Recipe(weights=4, kept=4, stream=4, autocast=2))
    x = ops.var(8 * 4, 4)
    out = ops.add(ops.linear("q_proj", x, 6, 4), ops.linear("k_proj", x, 6, 4))
    found = ops.measure((x,), out, counted=(x,))
    assert found.saved == {"activations": 2 * 8 * 4 * 2, "weight copies": 2 * 4 * 6 * 2}
    assert found.weight_grads == 2 * 4 * 6 * 4


@pytest.mark.parametrize(("cuda", "mask"), [(True, 1), (False, 2)])
def test_dropout_masks_are_a_byte_on_cuda_and_as_wide_as_the_tensor_on_a_cpu(cuda, mask):
    ops = Ops(Recipe(weights=2, kept=2, stream=2, cuda=cuda))
    x = ops.var(10, 2)
    assert ops.measure((x,), ops.drop(x, 0.1)).saved_bytes == 10 * mask
    ops = Ops(Recipe(weights=2, kept=2, stream=2, cuda=cuda))
    x = ops.var(10, 2)
    assert ops.measure((x,), ops.drop(x, 0.0)).saved_bytes == 0


def test_a_residual_passes_its_gradient_on_without_a_copy():
    tape = Tape()
    x = tape.var(100, 2)
    branch = tape.plain(x)
    found = tape.measure((x,), tape.add(branch, x))
    # The output's gradient, that of the branch's input, and nothing else but their sum.
    assert found.backward <= 3 * 200
    assert found.forward == 2 * 200


@given(st.integers(1, 50), st.integers(1, 50), st.sampled_from([2, 4]))
def test_peaks_never_lie_below_what_is_kept(rows, size, width):
    ops = Ops(Recipe(weights=width, kept=width, stream=width, compute=width))
    x = ops.var(rows * size, width)
    out = ops.norm("rms", ops.activate("gelu_new", ops.linear("up", x, size, size)), size)
    found = ops.measure((x,), out, counted=(x,))
    assert found.forward >= found.saved_bytes > 0
    assert found.backward >= found.saved_bytes
    assert 0 < found.unsaved <= found.forward
