"""Torch's random state, lent to a model that is random at test time and put back."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager

import torch


def own_randomness(device: torch.device) -> AbstractContextManager[None]:
    """Inside, torch's random state on the CPU and this device may be used up; afterwards it is as it was."""
    return torch.random.fork_rng(devices=[_index(device)] if device.type == "cuda" else [])


def seed_randomness(device: torch.device, *key: int | str) -> None:
    """Seed torch's random state on the CPU and on this device.

    Args:
        device: where the model is.
        key: what the seed follows from. It is hashed: neighbouring keys give unrelated draws, and none
            repeats those of a generator that was seeded with a number of the key.
    """
    seed = seed_of(*key)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[_index(device)].manual_seed(seed)


def seed_of(*key: int | str) -> int:
    """A seed of 32 bits, all that torch's generator on the CPU takes, from a key."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=4).digest())


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index
