"""An attack in one norm with a small problem; the contract's rules run and measure it."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.engine.attacked_model import AttackedModel
from robustbench_tin.attacks.engine.perturb import perturb_images
from robustbench_tin.testing.toy import Toy, toy_problem

if TYPE_CHECKING:
    from robustbench_tin.benchmarks.measurement.results import Measurement

BUDGETS = {"linf": (0.0, 1e-8, 8 / 255, 1.0), "l2": (0.0, 1e-8, 0.5, 100.0)}
"""For each norm: no budget, one below the rounding of float32, a usual one, and the whole pixel box."""

# Every attack is checked against every rule, so there are only a few images.
_IMAGES = 20


def small_problem() -> Toy:
    """The toy problem with few images, and its own copy of the model."""
    shared = toy_problem()
    return Toy(copy.deepcopy(shared.model), shared.images[:_IMAGES].clone(), shared.labels[:_IMAGES].clone())


@dataclass(frozen=True)
class AttackCase:
    """The case that a rule checks.

    Attributes:
        attack: the attack.
        norm: ``linf`` or ``l2``.
        toy: model, images and labels.
    """

    attack: Attack
    norm: str
    toy: Toy = field(default_factory=small_problem)

    @property
    def eps(self) -> tuple[float, ...]:
        """Budgets in this norm: none, a tiny one, a usual one, the whole box."""
        return BUDGETS[self.norm]

    @property
    def usual(self) -> float:
        """A budget of the usual size."""
        return self.eps[2]

    def perturb(
        self,
        eps: Sequence[float] | None = None,
        *,
        model: nn.Module | None = None,
        images: Tensor | None = None,
        labels: Tensor | None = None,
        norm: str | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Adversarial images, float32 ``(K, N, 3, 16, 16)``; of the toy problem's images by default."""
        with AttackedModel(self.toy.model if model is None else model) as attacked:
            return perturb_images(
                self.attack,
                attacked,
                self.toy.images if images is None else images,
                self.toy.labels if labels is None else labels,
                self.eps if eps is None else eps,
                norm=norm or self.norm,
                seed=seed,
            )

    def measure(
        self,
        model: nn.Module,
        eps: Sequence[float],
        *,
        images: int = _IMAGES,
        batch_size: int = _IMAGES,
        given: Tensor | None = None,
        search: str = "auto",
    ) -> Sequence[Measurement]:
        """The results of a benchmark's measurement, one for each eps.

        Args:
            model: maps pixels to logits.
            eps: budgets.
            images: number of the toy problem's images.
            batch_size: number of images in one call of the model.
            given: images to use instead of the toy problem's.
            search: setting for the variant of the model to search with.
        """
        from robustbench_tin.attacks.engine.image_batches import ImageBatches
        from robustbench_tin.benchmarks.measurement.attack import measure_attack
        from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol

        shown = self.toy.images if given is None else given
        batches = ImageBatches(shown[:images], self.toy.labels[:images], batch_size, torch.device("cpu"))
        return measure_attack(model, batches, self.attack, eps, AttackProtocol(self.norm, search=search))

    def passes(self, eps: float, *, images: int) -> tuple[int, int]:
        """Number of forward and backward passes of the attack on the first images."""
        with AttackedModel(self.toy.model) as attacked:
            perturb_images(
                self.attack,
                attacked,
                self.toy.images[:images],
                self.toy.labels[:images],
                [eps],
                norm=self.norm,
            )
        return attacked.forward_passes, attacked.backward_passes


def state_of(model: nn.Module) -> dict[str, Any]:
    """The state that an attack might disturb, comparable with ``==``."""
    return {
        "weights or buffers": {key: value.numpy().tobytes() for key, value in model.state_dict().items()},
        "train and eval modes": [module.training for module in model.modules()],
        "requires_grad flags": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [
            None if parameter.grad is None else parameter.grad.tolist() for parameter in model.parameters()
        ],
        "random state of torch": torch.random.get_rng_state().tolist(),
        "random state of NumPy": np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002
        "random state of Python": random.getstate(),
        "float32 precision": (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32),
    }


def changed(before: dict[str, Any], model: nn.Module) -> str:
    """The names of changed states, for a message; empty if nothing changed."""
    after = state_of(model)
    return ", ".join(name for name, value in before.items() if value != after[name])
