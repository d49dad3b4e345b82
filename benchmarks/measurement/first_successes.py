"""The adversarial images that a run keeps: the first successes in a random order of its images.

The order is random, and the same for every cell, attack and eps, so that their images can be compared: it is
the order in which ``gallery --seed 0`` takes images. A success is an image that is right when clean and wrong
under the attack.

An image is kept only if the model, asked about this image alone, repeats the results of the measurement. So
whoever loads the image later gets the same prediction. A deterministic model nearly always repeats them. A
model that is random at test time is asked under several draws, and the number of the first draw that repeats
them is kept with the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustbench_tin.attacks.base import AttackedModel
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.measurement.clean import batch_logits, lone_logits
from robustbench_tin.benchmarks.runs.adversarial_images import AdversarialImages
from robustbench_tin.metrics import in_top

ORDER_SEED = 0
"""Seed of the order of the images."""
# Candidates for each image that is kept, because some are not adversarial when they are alone.
_CANDIDATES = 4
# Draws under which a model is asked about an image.
_DRAWS = 16


@dataclass(frozen=True)
class Keep:
    """Which successes are kept.

    Attributes:
        places: place of each image in the order, int64 ``(N,)``.
        candidates: number of successes that are kept as candidates.
        right: images that are right when clean, bool ``(N,)``; None if that is not known yet.
    """

    places: npt.NDArray[np.int64]
    candidates: int
    right: npt.NDArray[np.bool_] | None = None

    @classmethod
    def first(cls, count: int, images: int) -> Self | None:
        """Keep the first successes among some images; None keeps nothing.

        Args:
            count: number of images kept of each attack and eps.
            images: number of evaluated images.
        """
        if count == 0:
            return None
        order = np.random.default_rng(ORDER_SEED).permutation(images)
        return cls(np.argsort(order), _CANDIDATES * count)

    def knowing(self, right: npt.NDArray[np.bool_]) -> Self:
        """The same, once it is known which images are right when clean."""
        return replace(self, right=right)

    def subset(self, rows: Tensor) -> Self:
        """The same for some of the images, int64 numbers on the CPU."""
        chosen = rows.numpy()
        return replace(
            self, places=self.places[chosen], right=None if self.right is None else self.right[chosen]
        )


@dataclass
class FirstSuccesses:
    """Takes successes in any order, and holds those that come first.

    Attributes:
        keep: which.
    """

    keep: Keep
    _images: dict[int, Tensor] = field(default_factory=dict)

    def offer(self, rows: Tensor, images: Tensor) -> None:
        """Take successes; one that is offered again takes the place of its former image.

        Args:
            rows: their numbers, int64 ``(n,)`` on the CPU.
            images: float32 ``(n, C, H, W)``.
        """
        places = self.keep.places
        full = len(self._images) >= self.keep.candidates
        last = max(map(places.__getitem__, self._images)) if full else len(places)
        chosen = torch.from_numpy(places[rows.numpy()] <= last).nonzero().squeeze(1)
        if len(chosen) == 0:
            return
        copies = images[chosen.to(images.device)].cpu()
        # Each in memory of its own: a view would keep the whole batch.
        self._images |= {row: copy.clone() for row, copy in zip(rows[chosen].tolist(), copies, strict=True)}
        first = sorted(self._images, key=places.__getitem__)[: self.keep.candidates]
        self._images = {row: self._images[row] for row in first}

    def found(self, shape: Sequence[int]) -> AdversarialImages:
        """The first successes, in their order.

        Args:
            shape: of one image.
        """
        images = [image.numpy() for image in self._images.values()]
        return AdversarialImages(
            np.array(list(self._images), dtype=np.int64),
            np.stack(images) if images else np.empty((0, *shape), np.float32),
            np.zeros(len(images), dtype=np.int64),
        )


def right_in_batch(
    keep: Keep,
    attacked: AttackedModel,
    images: Tensor,
    labels: Tensor,
    logits: Tensor | None,
    seed: int,
    start: int,
) -> Tensor:
    """The images of a batch that are right when clean, bool ``(n,)`` on the CPU.

    Args:
        keep: may know it.
        attacked: the attacked model, entered.
        images: the batch.
        labels: likewise.
        logits: of the clean images, if they are known.
        seed: of the measurement.
        start: first row of the batch.
    """
    if keep.right is not None:
        return torch.from_numpy(keep.right[start : start + len(labels)])
    if logits is None:
        logits = batch_logits(attacked, images, seed, start)
        attacked.forward_passes -= len(images)  # no attack's
    return in_top(logits, labels, 1).cpu()


def carried(below: AdversarialImages, here: AdversarialImages, keep: Keep) -> AdversarialImages:
    """The first successes up to a rung of a ladder: an image stays as the smallest eps made it.

    Args:
        below: the first successes up to the rung below.
        here: those of this rung, some of them fallen below already.
        keep: which are kept.
    """
    new = here.take(~np.isin(here.rows, below.rows))
    both = below.with_more(new)
    return both.take(np.argsort(keep.places[both.rows])[: keep.candidates])


def confirmed(
    candidates: AdversarialImages,
    attacked: AttackedModel,
    batches: ImageBatches,
    *,
    count: int,
    k: int,
    seed: int,
    predicted: npt.NDArray[np.int32] | None,
) -> AdversarialImages:
    """The first candidates whose result the model repeats, asked about the image alone.

    Args:
        candidates: in their order.
        attacked: the attacked model, entered.
        batches: the evaluated images.
        count: number of images that are kept, at most.
        k: a success is an image whose label is not in the top ``k``.
        seed: of the measurement.
        predicted: class with the largest logit of each adversarial image, int32 ``(N,)``; None: not known.
    """
    draws: dict[int, int] = {}
    for number, row in enumerate(candidates.rows.tolist()):
        if len(draws) == count:
            break
        image = torch.from_numpy(candidates.images[number])
        expected = None if predicted is None else int(predicted[row])
        for draw in range(_DRAWS):
            if repeats(attacked, batches, row, image, draw, k=k, seed=seed, predicted=expected):
                draws[number] = draw
                break
    kept = candidates.take(np.array(list(draws), dtype=np.int64))
    return replace(kept, draws=np.array(list(draws.values()), dtype=np.int64))


def repeats(
    attacked: AttackedModel,
    batches: ImageBatches,
    row: int,
    adversarial: Tensor,
    draw: int,
    *,
    k: int,
    seed: int,
    predicted: int | None,
) -> bool:
    """Whether the model, asked about one image alone, is right before and wrong after the attack, as stored.

    Args:
        attacked: the attacked model, entered.
        batches: the evaluated images.
        row: number of the image.
        adversarial: float32 ``(C, H, W)``.
        draw: number of the draw of a model that is random at test time.
        k: a success is an image whose label is not in the top ``k``.
        seed: of the measurement.
        predicted: class with the largest logit under attack; None: not known.
    """
    (clean,), label = batches.rows(torch.tensor([row]))
    before = lone_logits(attacked, clean, seed, row, draw)
    after = lone_logits(attacked, adversarial.to(clean.device), seed, row, draw)
    return (
        bool(in_top(before[None], label, k))
        and not bool(in_top(after[None], label, k))
        and predicted in (None, int(after.argmax()))
    )
