"""Weights files: what is read, what is refused, and that no code in one ever runs."""

import json
import os
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from model import MaskedUNet, NetworkConfig, load_network, save_network
from model.checkpoint import CONFIG_KEY, WeightsError, read_metadata, weights_sha256
from model.masked_unet import initialise

SMALL = NetworkConfig(base_channels=4, depth=3)


def santos_file(path: Path, channels: int = 4, depth: int = 7) -> dict[str, torch.Tensor]:
    """A checkpoint as the authors released theirs: their names, their derived filters, no config."""
    widths = [3] + [channels * min(2**level, 8) for level in range(depth)]
    kernels = [7, 5, 5, 3, 3, 3, 3][:depth]
    state = {}
    for i in range(depth):
        state[f"enc_{i + 1}.conv.input_conv.weight"] = torch.randn(widths[i + 1], widths[i], kernels[i], kernels[i])
        state[f"enc_{i + 1}.conv.mask_update_conv.weight"] = torch.rand(widths[i + 1], widths[i], kernels[i], 1)
        state[f"dec_{i + 1}.conv.input_conv.weight"] = torch.randn(widths[i], widths[i + 1] + widths[i], 3, 3)
        state[f"dec_{i + 1}.conv.mask_update_conv.weight"] = torch.rand(widths[i], 1, 3, 3)
    state["dec_1.conv.input_conv.bias"] = torch.tensor([0.1, 0.2, 0.3])
    torch.save({"model": state, "iteration": 7}, path)
    return state


def test_the_authors_checkpoint_is_known_by_its_keys(tmp_path):
    state = santos_file(tmp_path / "official.pth")
    net = load_network(tmp_path / "official.pth")
    assert net.config == NetworkConfig(
        base_channels=4,
        mask_threshold=0.95,
        encoder_activation="relu",
        decoder_activation="leaky_relu",
        skip_mask="ones",
        floor=False,
    )
    assert torch.equal(net.encoder[2].conv.weight, state["enc_3.conv.input_conv.weight"])
    assert torch.equal(net.decoder[6].conv.weight, state["dec_7.conv.input_conv.weight"])
    assert torch.equal(net.decoder[0].conv.bias, state["dec_1.conv.input_conv.bias"])


@pytest.mark.parametrize("masking", ["feature", "input", "gated", "none"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_what_is_saved_comes_back(tmp_path, suffix, masking):
    config = NetworkConfig(base_channels=4, depth=3, masking=masking, mask_threshold=0.9, floor=True)
    net = initialise(MaskedUNet(config), seed=3)
    save_network(net, tmp_path / f"net{suffix}", {"note": "höchst"})
    back = load_network(tmp_path / f"net{suffix}")
    assert back.config == config
    assert not back.training
    for name, tensor in net.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
    if suffix == ".safetensors":
        assert read_metadata(tmp_path / "net.safetensors")["note"] == "höchst"
    assert [path.name for path in tmp_path.iterdir()] == [f"net{suffix}"]  # nothing temporary stays


def test_half_precision_halves_the_file_and_reads_as_float32(tmp_path):
    net = initialise(MaskedUNet(SMALL), seed=0)
    save_network(net, tmp_path / "full.safetensors")
    save_network(net, tmp_path / "half.safetensors", dtype=torch.float16)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half")]
    tensors = sum(tensor.numel() for tensor in net.state_dict().values())
    assert sizes[0] - sizes[1] >= 2 * tensors - 64
    assert next(load_network(tmp_path / "half.safetensors").parameters()).dtype == torch.float32


def test_the_default_weights_load_and_have_a_card():
    assert load_network().config.base_channels >= 16
    assert len(weights_sha256()) == 64


class Payload:
    """Unpickled, it would make a directory."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


@pytest.mark.parametrize("how", ["torch", "bare", "inside the state dict"])
def test_code_in_a_checkpoint_is_never_run(tmp_path, how):
    evil, proof = tmp_path / "evil.pth", tmp_path / "proof"
    if how == "bare":
        evil.write_bytes(pickle.dumps({"model": Payload(proof)}, protocol=2))
    else:
        state = santos_file(tmp_path / "good.pth", depth=2)
        torch.save({"model": {**state, "x": Payload(proof)} if "inside" in how else Payload(proof)}, evil)
    with pytest.raises(WeightsError, match=r"evil\.pth: refused as a weights file"):
        load_network(evil)
    assert not proof.exists()


def header(path: Path, tensors: dict, data: bytes = b"", config: object = None) -> Path:
    """A safetensors file written by hand, after the format's description."""
    table = {"__metadata__": {CONFIG_KEY: json.dumps(config or {"base_channels": 4, "depth": 3})}, **tensors}
    text = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a weights file"),
        (b"hello, I am a text", "not a weights file"),
        (b"PK\x03\x04 and then nothing", "refused as a weights file"),
        (struct.pack("<Q", 2**62) + b"{}", "not a weights file"),
    ],
)
def test_other_files_are_refused_with_a_sentence(tmp_path, content, said):
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=said) as caught:
        load_network(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_absurd_shapes_are_refused_before_anything_is_allocated(tmp_path):
    shape = [2**31, 2**31]
    tensor = {"encoder.0.conv.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}
    with pytest.raises(WeightsError, match="not a weights file"):
        load_network(header(tmp_path / "a.safetensors", tensor, bytes(4)))
    one = {"encoder.0.conv.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    huge = {"base_channels": 1024, "depth": 10}  # a petabyte, were it built
    with pytest.raises(WeightsError, match="do not fit its settings"):
        load_network(header(tmp_path / "b.safetensors", one, bytes(4), huge))
    with pytest.raises(WeightsError, match="base_channels must be 1 to 1024"):
        load_network(header(tmp_path / "c.safetensors", one, bytes(4), {"base_channels": 10**9}))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"depth":' * 100_000, '{"depth": 1' + "0" * 5000 + "}"])
def test_settings_that_json_cannot_hold_are_a_sentence(tmp_path, text):
    table = json.dumps({"__metadata__": {CONFIG_KEY: text}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(table)) + table)
    with pytest.raises(WeightsError, match="its network settings cannot be used") as caught:
        load_network(tmp_path / "a.safetensors")
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("shape", [[2**63], [2**63, 0], [0, 2**63], [2**64], [-1], [2**32, 2**32]])
def test_shapes_beyond_64_bits_are_a_sentence(tmp_path, shape):
    tensor = {"encoder.0.conv.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}
    with pytest.raises(WeightsError, match="not a weights file") as caught:
        load_network(header(tmp_path / "a.safetensors", tensor))
    assert "\n" not in str(caught.value)


STRANGE = {
    "float8": lambda t: t.to(torch.float8_e4m3fn),
    "complex64": lambda t: t.to(torch.complex64),
    "int64": lambda t: t.to(torch.int64),
    "sparse": lambda t: t.to_sparse(),
    "meta": lambda t: t.to("meta"),
    "one number seen as many": lambda t: t.new_zeros(1).expand(t.shape),
}


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.filterwarnings("error")
def test_tensors_of_another_kind_are_named(tmp_path, kind):
    state = santos_file(tmp_path / "a.pth", depth=2)
    name = "enc_2.conv.input_conv.weight"
    with warnings.catch_warnings(action="ignore"):  # of sparse ones
        torch.save({"model": {**state, name: STRANGE[kind](state[name])}}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"encoder\.1\.conv\.weight is (of type|sparse, without data)"):
        load_network(tmp_path / "a.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_of_16_and_64_bits_are_read(tmp_path, dtype):
    state = santos_file(tmp_path / "a.pth", depth=2)
    torch.save({"model": {name: tensor.to(dtype) for name, tensor in state.items()}}, tmp_path / "a.pth")
    assert next(load_network(tmp_path / "a.pth").parameters()).dtype == torch.float32


def test_a_name_that_is_no_text_is_a_sentence(tmp_path):
    state = santos_file(tmp_path / "a.pth", depth=2)
    torch.save({"model": {**state, 3: torch.zeros(1)}}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="more than named tensors"):
        load_network(tmp_path / "a.pth")


def test_a_checkpoint_that_unpacks_to_more_than_its_file_is_refused_unread(tmp_path, monkeypatch):
    """Four kilobytes of zeros for every byte: a packed .pth of 4 MB asked for gigabytes."""
    santos_file(tmp_path / "good.pth", depth=2)
    with (
        zipfile.ZipFile(tmp_path / "good.pth") as good,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in good.infolist():
            bomb.writestr(entry.filename, good.read(entry) + bytes(2**20))
    load_network(tmp_path / "good.pth")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpacked"))
    with pytest.raises(WeightsError, match="it unpacks to"):
        load_network(tmp_path / "bomb.pth")


def test_a_path_that_is_too_long_is_no_weights_file(tmp_path):
    with pytest.raises(WeightsError, match="no such weights file"):
        load_network(tmp_path / ("x" * 5000))


def test_another_shape_not_finite_numbers_and_other_networks_are_named(tmp_path):
    from safetensors.torch import save_file

    config = {CONFIG_KEY: json.dumps({"base_channels": 4, "depth": 3})}
    state = {name: tensor.clone() for name, tensor in MaskedUNet(SMALL).state_dict().items()}
    save_file({**state, "decoder.0.conv.bias": torch.zeros(4)}, tmp_path / "shape.safetensors", config)
    with pytest.raises(WeightsError, match=r"decoder\.0\.conv\.bias has shape \(4,\), its settings need \(3,\)"):
        load_network(tmp_path / "shape.safetensors")
    save_file({**state, "decoder.0.conv.bias": torch.full((3,), torch.nan)}, tmp_path / "nan.safetensors", config)
    with pytest.raises(WeightsError, match="not made of finite numbers"):
        load_network(tmp_path / "nan.safetensors")
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="of some other network"):
        load_network(tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="no such weights file"):
        load_network(tmp_path / "missing.safetensors")
    torch.save({"state_dict": {}}, tmp_path / "else.pth")
    with pytest.raises(WeightsError, match="no network of this kind is inside"):
        load_network(tmp_path / "else.pth")
