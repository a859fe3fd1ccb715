"""Weights on disk: our safetensors, and the authors' `.pth`. Nothing is ever unpickled beyond tensors."""

import hashlib
import json
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from model.atomic import replace_atomically
from model.errors import Ldr2hdrError
from model.masked_unet import MaskedUNet, NetworkConfig
from model.working_size import WORKING_SIZE

DEFAULT_WEIGHTS = Path(__file__).parent / "weights" / "default.safetensors"
CONFIG_KEY = "ldr2hdr.config"
SCENES_KEY = "ldr2hdr.scenes"  # JSON list: stems of the pictures that the weights were trained and validated on
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # of stored weights

# Settings of the checkpoint that the authors released; where they differ from the text: the paper page's table.
SANTOS2020 = {
    "mask_threshold": 0.95,
    "encoder_activation": "relu",
    "decoder_activation": "leaky_relu",
    "skip_mask": "ones",
}


class WeightsError(Ldr2hdrError):
    """A weights file that cannot be used."""


def load_network(path: str | os.PathLike[str] | None = None) -> MaskedUNet:
    """The network in a weights file, on the CPU in float32, in eval mode.

    path: our `.safetensors` (config in the metadata), or a `.pth` under the authors' names (with their settings unless
    it holds a `config`), told apart by what is inside; None: the default weights.
    Raises WeightsError for anything else. Only tensors are read: code in a pickle is never run.
    """
    path = DEFAULT_WEIGHTS if path is None else Path(path)
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where a path is too long
        raise WeightsError(f"{path}: no such weights file; give a .safetensors or .pth file with --weights.")
    state, config = _read_pth(path) if _is_pickle(path) else _read_safetensors(path)
    return _build(path, state, config)


def save_network(
    net: MaskedUNet,
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a network, by atomic rename: `.safetensors` with its config, or `.pth` under the authors' names.

    metadata: strings kept in a safetensors file beside the config. dtype: what the tensors are stored as (float16
    halves the file); None keeps theirs.
    """
    path = Path(path)
    state = {k: v.detach().to("cpu", dtype or v.dtype).contiguous() for k, v in net.state_dict().items()}
    if path.suffix == ".pth":
        content: Any = {"model": to_santos_names(state), "config": asdict(net.config)}
        replace_atomically(path, lambda file: torch.save(content, file))
    else:
        data = save(state, {**(metadata or {}), CONFIG_KEY: json.dumps(asdict(net.config), sort_keys=True)})
        replace_atomically(path, lambda file: file.write(data))


def read_metadata(path: str | os.PathLike[str] | None = None) -> dict[str, str]:
    """The strings kept in a safetensors file (training settings, data, scores); empty for a `.pth`."""
    path = DEFAULT_WEIGHTS if path is None else Path(path)
    if _is_pickle(path):
        return {}
    with _opened(path) as file:
        return dict(file.metadata() or {})


def read_scenes(path: str | os.PathLike[str] | None = None) -> list[str]:
    """Stems of the pictures that weights were trained and validated on, where their metadata names them."""
    try:
        names = json.loads(read_metadata(path).get(SCENES_KEY, "[]"))
    except (ValueError, RecursionError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def usual_working_size(path: str | os.PathLike[str] | None = None) -> int | None:
    """The `working_size` for `Reconstructor`: the size of the views that our training cuts.

    None for a `.pth`, which is run as the paper has it.
    """
    return WORKING_SIZE if CONFIG_KEY in read_metadata(path) else None


@cache
def _sha256(path: Path, _size: int, _modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_sha256(path: str | os.PathLike[str] | None = None) -> str:
    """SHA-256 of a weights file, in hexadecimal; None: of the default weights."""
    path = DEFAULT_WEIGHTS if path is None else Path(path)
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


def to_santos_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names to the authors': `encoder.0.conv.weight` → `enc_1.conv.input_conv.weight`."""
    return {
        re.sub(
            r"^(enc|dec)oder\.(\d+)\.(conv|gate)\.",
            lambda m: f"{m[1]}_{int(m[2]) + 1}.conv.{'input_conv' if m[3] == 'conv' else 'gate_conv'}.",
            name,
        ): tensor
        for name, tensor in state.items()
    }


def from_santos_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' names to ours; the mask filters, which are derived, are left out."""
    return {
        re.sub(
            r"^(enc|dec)_(\d+)\.conv\.(input|gate)_conv\.",
            lambda m: f"{m[1]}oder.{int(m[2]) - 1}.{'conv' if m[3] == 'input' else 'gate'}.",
            name,
        ): tensor
        for name, tensor in state.items()
        if ".mask_update_conv." not in name
    }


def _is_pickle(path: Path) -> bool:
    """A torch.save file is a zip, or in its old form a bare pickle; a safetensors file is neither."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}).") from None
    return start[:2] == b"PK" or (start[:1] == b"\x80" and start[8:9] != b"{")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file. What its reader raises on a damaged one (TypeError for a shape of 2^63) is a sentence."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path}: not a weights file ({reason}); give a .safetensors that `ldr2hdr train` wrote, or a .pth."
        ) from None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], NetworkConfig]:
    with _opened(path) as file:
        metadata = file.metadata() or {}
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    if CONFIG_KEY not in metadata:
        raise WeightsError(
            f"{path}: these tensors are of some other network (no {CONFIG_KEY}); give weights of `ldr2hdr train`."
        )
    try:
        return state, _config(json.loads(metadata[CONFIG_KEY]))
    except RecursionError:
        raise WeightsError(f"{path}: its network settings cannot be used: they are nested too deeply.") from None
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path}: its network settings cannot be used: {error}.") from None


def _read_pth(path: Path) -> tuple[dict[str, Tensor], NetworkConfig]:
    try:
        _refuse_compression(path)
        with warnings.catch_warnings(action="ignore"):  # torch's warnings about a file: our own sentence says it once
            content = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # torch raises anything from EOFError to UnpicklingError on a file that is no checkpoint
        reason = "it holds more than tensors, and code is never run" if "weights_only" in str(error) else "damaged"
        raise WeightsError(
            f"{path}: refused as a weights file ({reason}); give the authors' .pth or a .safetensors file."
        ) from None
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or "enc_1.conv.input_conv.weight" not in state:
        raise WeightsError(
            f"{path}: no network of this kind is inside; give the authors' checkpoint, with a state dict under 'model'."
        )
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()):
        raise WeightsError(
            f"{path}: its state dict holds more than named tensors; give the authors' .pth or a .safetensors file."
        )
    first = state["enc_1.conv.input_conv.weight"]
    inferred = {
        **SANTOS2020,
        "base_channels": int(first.shape[0]) if first.ndim else 0,
        "depth": sum(1 for name in state if re.fullmatch(r"enc_\d+\.conv\.input_conv\.weight", name)),
    }
    try:
        return from_santos_names(state), _config(content.get("config") or inferred)
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path}: its network settings cannot be used: {error}.") from None


def _refuse_compression(path: Path) -> None:
    """torch.save compresses nothing, so what a checkpoint becomes in memory is no larger than its file."""
    if not zipfile.is_zipfile(path):
        return  # the old form, or damaged
    with zipfile.ZipFile(path) as archive:
        whole = sum(entry.file_size for entry in archive.infolist())
    if whole > path.stat().st_size:
        raise WeightsError(
            f"{path}: refused as a weights file: it unpacks to {whole} bytes; torch.save does not compress."
        )


def _config(settings: Any) -> NetworkConfig:
    if not isinstance(settings, dict):
        raise TypeError("they are not a table")
    known = {field.name for field in fields(NetworkConfig)}
    if unknown := sorted(set(settings) - known):
        raise ValueError(f"unknown setting {', '.join(map(str, unknown))}")
    return NetworkConfig(**settings)


def _build(path: Path, state: dict[str, Tensor], config: NetworkConfig) -> MaskedUNet:
    with torch.device("meta"):  # nothing is allocated before the shapes have been compared
        expected = MaskedUNet(config).state_dict()
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        raise WeightsError(f"{path}: its tensors do not fit its settings (missing {missing[:3]}, extra {extra[:3]}).")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise WeightsError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, its settings need {tuple(expected[name].shape)}."
            )
        if not _is_dense(tensor):
            raise WeightsError(
                f"{path}: {name} is sparse, without data or a view that repeats numbers; save a dense copy of it."
            )
        if tensor.dtype not in DTYPES:
            kinds = ", ".join(str(kind).removeprefix("torch.") for kind in DTYPES)
            raise WeightsError(f"{path}: {name} is of type {tensor.dtype}, but must be one of {kinds}.")
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{path}: {name} is not made of finite numbers; the training that wrote it failed.")
    net = MaskedUNet(config)
    net.load_state_dict(state)
    return net.eval()


def _is_dense(tensor: Tensor) -> bool:
    """Every number is stored: not sparse, not on "meta", not a view that shows few numbers as many (stride 0)."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()
