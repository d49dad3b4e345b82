"""The global random states: seeded for models that are random at test time, and restored."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """Restore, on exit, the random states of torch (CPU and this device), NumPy and Python."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - models draw from it
    with torch.random.fork_rng(devices=[_index(device)] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def seed_randomness(device: torch.device, *key: int | str) -> None:
    """Seed the random states of torch on the CPU and on this device, of NumPy and of Python.

    Args:
        device: the device of the model.
        key: the key of the seed. It is hashed, so that similar keys give unrelated draws, and none repeats
            those of a generator that was seeded with a number of the key.
    """
    seed = seed_of(*key)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[_index(device)].manual_seed(seed)


def random_state(device: torch.device) -> tuple[object, ...]:
    """The random states of torch on the CPU and on this device, of NumPy and of Python, for comparison."""
    torchs = [torch.get_rng_state()]
    if device.type == "cuda":
        torchs.append(torch.cuda.get_rng_state(device))
    numpy: Any = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    numpys = numpy["key"].tobytes(), numpy["pos"]
    return tuple(state.numpy().tobytes() for state in torchs), numpys, random.getstate()


def seed_of(*key: int | str) -> int:
    """A seed of 32 bits from a key; torch's generator on the CPU takes no more."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=4).digest())


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index
