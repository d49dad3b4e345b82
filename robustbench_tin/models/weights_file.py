"""Reading a weights file of either kind, with one line for everything that can be wrong with it."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from robustbench_tin.errors import WeightsError

_TORCH_SUFFIXES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".tar"})
_TORCH_STARTS = (b"PK\x03\x04", b"\x80\x02\x8a\x0a")  # a zip archive, and the pickle of torch before 1.6
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "network.")  # of parallel, compiled and our own wrappers
_EXPECTED = "expected safetensors, or a torch file that holds only tensors"


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of a file, floating ones as float32, and what it says about itself."""

    path: Path
    state: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_weights_file(path: Path) -> WeightsFile:
    """Read safetensors or a torch file; wrappers and prefixes of key names are taken off.

    Raises:
        WeightsError: where it is missing, truncated, no weights file, or would need to run code.
    """
    if not path.is_file():
        raise WeightsError(f"weights '{path}' is no file; {_EXPECTED}")
    metadata: Mapping[str, str] = {}
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start in _TORCH_STARTS or path.suffix in _TORCH_SUFFIXES:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about pickles that it then refuses
                content = _unwrap(torch.load(path, map_location="cpu", weights_only=True))
        else:
            content, metadata = _read_safetensors(path)
    except Exception as error:  # a damaged file can make a foreign parser raise anything
        raise WeightsError(f"weights '{path}' cannot be read ({_brief(error)}); {_EXPECTED}") from error
    if not _is_state(content):
        raise WeightsError(f"weights '{path}' holds no dict of named tensors; {_EXPECTED}")
    return WeightsFile(path, {key: _single(value) for key, value in _strip(content).items()}, metadata)


def tensors_digest(state: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits of named tensors, however a file orders, wraps or describes them.

    Floating tensors count as float32, and keys without the prefixes of wrappers.
    """
    digest = hashlib.blake2b(digest_size=8)
    for key, value in sorted(_strip(state).items()):
        tensor = _single(value.detach().cpu()).contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _unwrap(content: Any) -> Any:
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            return content[wrapper]
    return content


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    )


def _strip(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return _strip({key.removeprefix(prefix): value for key, value in state.items()})
    return state


def _single(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _brief(error: Exception) -> str:
    """The first sentence: torch's advice to unpickle anyway is no advice to pass on."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds pickled objects, which could run code"
    return " ".join(str(error).split())[:120] or type(error).__name__
