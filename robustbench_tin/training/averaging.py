"""Averages of the weights during training, which can replace the final weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# EMA's decay after its first steps: an average over some hundreds of steps.
DECAY = 0.998
# Fraction of the epochs before SWA begins.
SWA_BEGINS = 0.75
# Largest number of batches from which the statistics of averaged weights are estimated.
STATISTICS_BATCHES = 50


class Average:
    """A running average of a classifier's weights: none, exponential (EMA) or equal (SWA).

    EMA is updated at each step, includes the running statistics of batch norm, and forgets its first steps
    faster: after n of them its decay is at most (1 + n) / (10 + n). SWA is updated at the end of each epoch
        in
    the last quarter, and its statistics are estimated again at the end: Izmailov, Podoprikhin, Garipov,
        Vetrov
    and Wilson, 2018, "Averaging Weights Leads to Wider Optima and Better Generalization", arXiv 1803.05407.

    Args:
        kind: ``none``, ``ema`` or ``swa``.
        classifier: the classifier whose weights are averaged.

    Attributes:
        shadow: the average, by the names of the state dict; empty before the first update.
        count: number of updates so far.
    """

    def __init__(self, kind: str, classifier: nn.Module) -> None:
        self.kind = kind
        self.shadow: dict[str, Tensor] = {}
        self.count = 0
        self._live = {
            name: value
            for name, value in classifier.state_dict(keep_vars=True).items()
            if value.is_floating_point() and (kind == "ema" or isinstance(value, nn.Parameter))
        }

    def after_step(self) -> None:
        """Update the average after a step, if it averages over steps."""
        if self.kind == "ema":
            self._take(1 - min(DECAY, (1 + self.count) / (10 + self.count)))

    def after_epoch(self, epoch: int, epochs: int) -> None:
        """Update the average after the epoch ``epoch``, from 0, if it averages over epochs."""
        if self.kind == "swa" and epoch >= min(int(SWA_BEGINS * epochs), epochs - 1):
            self._take(1 / (self.count + 1))

    @torch.no_grad()
    def _take(self, part: float) -> None:
        if not self.shadow:
            self.shadow = {name: value.detach().clone() for name, value in self._live.items()}
        else:
            torch._foreach_lerp_(list(self.shadow.values()), list(self._live.values()), part)
        self.count += 1

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Put EMA's average into the classifier for a measurement; other kinds change nothing."""
        if self.kind != "ema" or not self.shadow:
            yield
            return
        held = {name: value.detach().clone() for name, value in self._live.items()}
        self._put(self.shadow)
        try:
            yield
        finally:
            self._put(held)

    def finish(self, classifier: nn.Module, show_batch: Callable[[int], None], batches: int) -> None:
        """Put the average into the classifier at the end of training.

        Args:
            classifier: the classifier, in train mode.
            show_batch: passes a batch of the training set, given by its number, through the classifier.
            batches: number of batches of the training set; at most :data:`STATISTICS_BATCHES` are used.
        """
        if not self.shadow:
            return
        self._put(self.shadow)
        if self.kind == "swa":
            estimate_statistics(classifier, show_batch, min(batches, STATISTICS_BATCHES))

    def restore(self, shadow: Mapping[str, Tensor], count: int) -> None:
        """Continue from a checkpoint."""
        self.shadow = {name: shadow[name] for name in self._live if name in shadow}
        self.count = count

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self._live[name].copy_(value)


def estimate_statistics(classifier: nn.Module, show_batch: Callable[[int], None], batches: int) -> None:
    """Set batch norm's running statistics to the plain mean over some batches, in layers in train mode."""
    layers = [
        module
        for module in classifier.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
    ]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = None  # in torch, None means the plain mean over the batches seen
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.zero_()
    for batch in range(batches if layers else 0):
        show_batch(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
