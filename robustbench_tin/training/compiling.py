"""``--compile``: training with a network compiled by ``torch.compile``, if that works."""

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
    """Train with the network compiled inside the block; its weights keep their names.

    Compiling is tried on one batch first. If it fails, ``say`` gets the reason, and training continues
    without it. Each further shape and mode is compiled separately when it first occurs, because code for any
    shape is slower.

    Args:
        classifier: the classifier as built; ``runtime`` places it.
        runtime: device, precision and layout.
        batch: number of images in the trial batch, and in most later ones.
        say: called with a line for the user.
    """
    network = runtime.place(classifier).network
    assert isinstance(network, torch.nn.Module)
    # Only on this object: its class and its state dict do not change.
    network.__dict__["forward"] = torch.compile(network.forward, dynamic=False)
    try:
        reason = _failure(classifier, runtime, batch)
        if reason is not None:
            del network.__dict__["forward"]
            say(f"compiling failed, training continues without it: {reason}")
        yield
    finally:
        network.__dict__.pop("forward", None)


def _failure(classifier: Classifier, runtime: Runtime, batch: int) -> str | None:
    """The reason why a forward and a backward pass of one batch cannot be compiled; None if they can.

    Afterwards, the classifier and torch's random state are unchanged.
    """
    device = runtime.torch_device
    kept = {name: value.clone() for name, value in classifier.named_buffers()}
    mode = classifier.training
    size = classifier.image_size
    # With a gradient for the images too, as in adversarial training.
    images = torch.zeros(batch, 3, size, size, device=device, requires_grad=True, dtype=torch.float32)
    if runtime.channels_last:
        images = images.to(memory_format=torch.channels_last)
    forked = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=forked), runtime.autocast():
            loss = classifier.train()(images).sum()
        loss.backward()
    except Exception as error:  # noqa: BLE001 - any error of a compiler
        if is_out_of_memory(error):
            return None  # the loop splits its batches
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    finally:
        classifier.zero_grad(set_to_none=True)
        classifier.train(mode)
        with torch.no_grad():
            for name, value in classifier.named_buffers():
                value.copy_(kept[name])
    return None
