"""Loading: architectures, dtypes, quantization, pickles, and what is refused with which reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from model_runtime.errors import ModelError
from model_runtime.load import LoadOptions, load, weights_bytes
from model_runtime.precision import MIN_COMPUTE_CAPABILITY, Device, check_quantization, choose_dtype
from model_runtime.tiny import KINDS, build
from sizing.dtypes import DTYPES

T4 = Device("cuda", "Tesla T4", 7.5)
A100 = Device("cuda", "NVIDIA A100-SXM4-40GB", 8.0)
K80 = Device("cuda", "Tesla K80", 3.7)
CPU = Device("cpu")
ARCHITECTURE = {"t5": "encoder-decoder", "llama": "decoder-only", "gpt2": "decoder-only", "bert": "encoder-only"}

pytestmark = pytest.mark.filterwarnings("ignore:.*bitsandbytes.*")


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_loads_by_its_own_configuration(tiny: Callable[[str], Path], kind: str) -> None:
    loaded = load(str(tiny(kind)), LoadOptions(device="cpu"))
    assert loaded.architecture == ARCHITECTURE[kind]
    assert loaded.input_window == 128
    assert loaded.total_window == (128 if kind in ("llama", "gpt2") else None)
    assert loaded.tokenizer.padding_side == ("left" if kind in ("llama", "gpt2") else "right")
    assert loaded.tokenizer.pad_token_id is not None
    assert loaded.dtype == "fp32"
    assert set(loaded.seconds) == {"download", "load"}
    assert not loaded.model.training


@pytest.mark.parametrize(
    ("device", "dtype"),
    [(T4, "fp16"), (A100, "bf16"), (K80, "fp32"), (CPU, "fp32"), (Device("cuda", "L4", 8.9), "bf16")],
)
def test_auto_takes_the_dtype_that_the_device_has_hardware_for(device: Device, dtype: str) -> None:
    assert choose_dtype("auto", device) == dtype


def test_bf16_on_a_t4_is_refused_although_torch_would_emulate_it() -> None:
    with pytest.raises(ModelError, match=r"bf16 needs compute capability 8\.0; Tesla T4 has 7\.5.*use fp16"):
        choose_dtype("torch.bfloat16", T4)


def test_the_table_is_the_one_that_sizing_chooses_by() -> None:
    assert {name: DTYPES[name].min_compute_capability for name in MIN_COMPUTE_CAPABILITY} == MIN_COMPUTE_CAPABILITY


@pytest.mark.parametrize(("name", "says"), [("int3", "one of none, int8"), ("fp8", "one of none, int8")])
def test_an_unknown_quantization_is_refused(name: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        check_quantization(name, CPU)


def test_quantization_is_refused_where_the_gpu_cannot() -> None:
    with pytest.raises(ModelError, match=r"int8 needs compute capability 7\.5"):
        check_quantization("bitsandbytes8", Device("cuda", "Tesla V100", 7.0))
    assert check_quantization("bitsandbytes4", Device("cuda", "Tesla V100", 7.0)) == "nf4"
    assert check_quantization("none", K80) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_int8_on_a_cpu_shrinks_the_linear_layers_and_keeps_the_rest(tmp_path: Path, kind: str) -> None:
    folder = build(kind, tmp_path / kind, hidden_size=64)
    plain = load(str(folder), LoadOptions(dtype="bf16", device="cpu"))
    small = load(str(folder), LoadOptions(dtype="bf16", quantize="int8", device="cpu"))
    kinds = {type(module).__name__ for module in small.model.modules()}
    assert "Linear8bitLt" in kinds
    assert 0.5 * plain.weights_bytes < small.weights_bytes < plain.weights_bytes
    assert not [note for note in small.notes if "reached" in note]
    # Embeddings stay as they are: of a model with a large vocabulary that is most of it.
    wordy = build(kind, tmp_path / "wordy", hidden_size=64, vocab_size=8192)
    notes = load(str(wordy), LoadOptions(dtype="bf16", quantize="int8", device="cpu")).notes
    assert [note for note in notes if note.startswith("int8 reached ") and note.endswith("stay in bf16")]


def test_nf4_on_a_cpu_runs_where_the_kernels_take_the_shapes_and_is_refused_where_not(tmp_path: Path) -> None:
    wide = build("llama", tmp_path / "wide", hidden_size=64)
    assert load(str(wide), LoadOptions(quantize="nf4", device="cpu")).quantize == "nf4"
    narrow = build("llama", tmp_path / "narrow", hidden_size=32)
    with pytest.raises(ModelError, match="CPU kernels do not take this model's shapes"):
        load(str(narrow), LoadOptions(quantize="nf4", device="cpu"))


def test_tied_weights_count_once(tiny: Callable[[str], Path]) -> None:
    model = load(str(tiny("gpt2")), LoadOptions(device="cpu")).model
    assert model.lm_head.weight is model.transformer.wte.weight
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    assert weights_bytes(model) == sum(p.numel() * 4 for p in model.parameters()) + buffers


def test_a_pickle_is_read_only_when_it_is_allowed(tmp_path: Path, tiny: Callable[[str], Path]) -> None:
    import torch

    folder = build("llama", tmp_path / "old", safe_serialization=False)
    with pytest.raises(ModelError, match="only pickled weights") as refused:
        load(str(folder), LoadOptions(device="cpu"))
    assert "--allow-pickle" in str(refused.value)
    read = load(str(folder), LoadOptions(device="cpu", allow_pickle=True)).model
    same = load(str(tiny("llama")), LoadOptions(device="cpu")).model
    assert torch.equal(read.lm_head.weight, same.lm_head.weight)


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("./no-such-folder", "no folder here"),
        ("a/b/c", "no folder here"),
        ("google/flan-t5-nowhere", "not in the hub's cache here and HF_HUB_OFFLINE is set"),
    ],
)
def test_a_place_that_is_none_is_told_in_one_line(location: str, says: str) -> None:
    with pytest.raises(ModelError, match=says) as error:
        load(location, LoadOptions(device="cpu"))
    assert "\n" not in str(error.value)


def test_broken_folders_are_told_in_one_line(tmp_path: Path, tiny: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        load(str(tmp_path), LoadOptions(device="cpu"))

    empty = tmp_path / "empty"
    shutil.copytree(tiny("llama"), empty)
    (empty / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        load(str(empty), LoadOptions(device="cpu"))

    headless = tmp_path / "headless"
    shutil.copytree(tiny("bert"), headless)
    config = json.loads((headless / "config.json").read_text())
    (headless / "config.json").write_text(json.dumps(config | {"architectures": ["BertModel"]}))
    with pytest.raises(ModelError, match="neither generates text nor classifies"):
        load(str(headless), LoadOptions(device="cpu"))


def test_a_gpu_that_is_not_there_is_not_invented(tiny: Callable[[str], Path]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ModelError, match="sees no GPU here"):
        load(str(tiny("llama")), LoadOptions(device="cuda"))
