"""``--compile``: the network's passes in training compiled by ``torch.compile``, where that works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from robustbench_tin.models.classifier import Classifier
from robustbench_tin.runtime import Runtime, is_out_of_memory


@contextmanager
def compiled(
    classifier: Classifier, runtime: Runtime, batch: int, say: Callable[[str], None]
) -> Iterator[None]:
    """Train with the network compiled while the block lasts; weights keep their names.

    It is tried on one batch first: where compiling fails, ``say`` hears why, and training goes on without.
    Other shapes and modes are compiled when they first come up, each for itself: code for any shape is
    slower.

    Args:
        classifier: as it was built; placed by ``runtime``.
        runtime: device, precision and layout.
        batch: images of the batch to try it on, and of most of those to come.
        say: hears a line.
    """
    network = runtime.place(classifier).network
    assert isinstance(network, torch.nn.Module)
    # Of this one object: its class and its state dict know nothing of it.
    network.__dict__["forward"] = torch.compile(network.forward, dynamic=False)
    try:
        reason = _failure(classifier, runtime, batch)
        if reason is not None:
            del network.__dict__["forward"]
            say(f"compiling failed, training goes on without: {reason}")
        yield
    finally:
        network.__dict__.pop("forward", None)


def _failure(classifier: Classifier, runtime: Runtime, batch: int) -> str | None:
    """Why a forward and a backward pass of one batch cannot be compiled; None where they can.

    The classifier and torch's random state are afterwards as they were.
    """
    device = runtime.torch_device
    kept = {name: value.clone() for name, value in classifier.named_buffers()}
    mode = classifier.training
    size = classifier.image_size
    # Asked for its own gradient too, as where images are fooled.
    images = torch.zeros(batch, 3, size, size, device=device, requires_grad=True, dtype=torch.float32)
    if runtime.channels_last:
        images = images.to(memory_format=torch.channels_last)
    forked = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=forked), runtime.autocast():
            loss = classifier.train()(images).sum()
        loss.backward()
    except Exception as error:  # noqa: BLE001 - whatever a compiler comes up with
        if is_out_of_memory(error):
            return None  # the loop takes smaller parts
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    finally:
        classifier.zero_grad(set_to_none=True)
        classifier.train(mode)
        with torch.no_grad():
            for name, value in classifier.named_buffers():
                value.copy_(kept[name])
    return None
