"""Reading of a weights file of either kind; each possible fault gives one line."""

from __future__ import annotations

import hashlib
import io
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import torch
from safetensors import safe_open
from torch import Tensor, nn

from robustbench_tin.errors import WeightsError, one_line
from robustbench_tin.models.state_dicts import Fitted, State, collect_states, fit

_TORCH_SUFFIXES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".tar"})
_TORCH_STARTS = (b"PK\x03\x04", b"\x80\x02\x8a\x0a")  # a zip archive, and the pickle of torch before 1.6
_USUAL = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.", "network.")  # from parallel, compiled and our own wrappers
_LEGACY_PICKLES = 5  # magic number, protocol, system, content, names of its storages
_LONGEST_TEXT = 10_000
_EXPECTED = "expected safetensors, or a torch file that holds only tensors"


@dataclass(frozen=True)
class WeightsFile:
    """The named tensors of a file, and its metadata.

    Attributes:
        path: the file's path.
        states: every dict of named tensors in it, by the keys that lead there.
        metadata: the metadata of safetensors.
    """

    path: Path
    states: Mapping[tuple[str, ...], State]
    metadata: Mapping[str, str]

    @cached_property
    def state(self) -> Mapping[str, Tensor]:
        """The most likely state of a network, floating tensors as float32, without wrappers' prefixes."""
        usual = (place for place in self.states if not place or place[-1] in _USUAL)
        chosen = self.states[next(usual, next(iter(self.states)))]
        tensors = {key: value for key, value in chosen.items() if isinstance(value, Tensor)}
        return {key: _single(value) for key, value in _strip(tensors).items()}

    def fitted(self, module: nn.Module, *, any_shape: Collection[str] = ()) -> Fitted | None:
        """A module's state dict from the file, found by :func:`robustbench_tin.models.state_dicts.fit`.

        Raises:
            WeightsError: if several parts with different tensors fit equally well.
        """
        parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
        own = module.state_dict()
        return fit(self.states, own, parameters, any_shape=any_shape, file=self.path.name)


def read_weights_file(path: Path) -> WeightsFile:
    """Read safetensors or a torch file, without running code that it may contain.

    Raises:
        WeightsError: if it is missing, damaged, not a weights file, or would need to run code.
    """
    if not path.is_file():
        raise WeightsError(f"weights '{path}' is not a file; {_EXPECTED}")
    try:
        states, metadata = _read(path)
        for state in states.values():
            _require_plain(state, path.stat().st_size)
    except Exception as error:  # a damaged file can make a foreign parser raise anything
        raise WeightsError(f"weights '{path}' cannot be read ({_brief(error)}); {_EXPECTED}") from error
    if not states:
        raise WeightsError(f"weights '{path}' holds no dict of named tensors; {_EXPECTED}")
    return WeightsFile(path, states, metadata)


def tensors_digest(state: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits for named tensors, independent of a file's order, wrappers and metadata.

    Floating tensors are hashed as float32, and keys without the prefixes of wrappers.
    """
    digest = hashlib.blake2b(digest_size=8)
    for key, value in sorted(_strip(state).items()):
        tensor = _single(value.detach().cpu()).contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path) -> tuple[Mapping[tuple[str, ...], State], Mapping[str, str]]:
    with path.open("rb") as file:
        start = file.read(4)
    if start not in _TORCH_STARTS and path.suffix not in _TORCH_SUFFIXES:
        with safe_open(path, framework="pt") as tensors:
            state = {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118
            return collect_states(state), tensors.metadata() or {}
    if start == _TORCH_STARTS[0]:
        _require_sizes(path)
    elif start == _TORCH_STARTS[1]:
        with path.open("rb") as file:
            for _ in range(_LEGACY_PICKLES):
                _require_short_texts(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about pickles, then refuses them
        return collect_states(torch.load(path, map_location="cpu", weights_only=True)), {}


def _require_sizes(path: Path) -> None:
    """Refuse an archive that becomes far larger when it is unpacked."""
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > _largest(path.stat().st_size):
            raise ValueError("it is a small archive that would fill the memory when unpacked")
        for name in archive.namelist():
            if name.endswith("data.pkl"):
                _require_short_texts(io.BytesIO(archive.read(name)))


def _require_short_texts(pickled: IO[bytes]) -> None:
    """Refuse a pickle with an endless name: torch searches it for minutes before it refuses it."""
    for _, argument, _ in pickletools.genops(pickled):
        if isinstance(argument, str) and len(argument) > _LONGEST_TEXT:
            raise ValueError(f"it contains a name of {len(argument):,} characters")


def _require_plain(state: State, size: int) -> None:
    """Refuse tensors that later steps could not convert, or that a file of this size cannot contain."""
    for key, value in state.items():
        if not isinstance(value, Tensor):
            continue
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_conj() or value.is_neg():
            raise ValueError(f"'{key}' is not a dense tensor")
        if value.numel() * value.element_size() > _largest(size):
            raise ValueError(f"'{key}' has the shape {tuple(value.shape)}, more than the file can hold")
        _single(value.flatten()[:1])


def _largest(size: int) -> int:
    """Number of bytes that a file of this size may expand to, because tensors may repeat values."""
    return 64 * size + (1 << 20)


def _strip(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return _strip({key.removeprefix(prefix): value for key, value in state.items()})
    return state


def _single(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _brief(error: Exception) -> str:
    """The first sentence of an error: torch's advice to unpickle anyway must not reach the user."""
    if isinstance(error, pickle.UnpicklingError):
        return "it is damaged, or contains pickled objects, which could run code"
    return one_line(error)[:150]
