"""The settings of the training loop: options of ``bench`` and fields of a recipe. Imports no torch.

They are defined here, not with the other options, because the loop may not import the benchmarks above it.
"""

from __future__ import annotations

from dataclasses import dataclass

from robustbench_tin.options import Config, option
from robustbench_tin.training.schedule import SCHEDULES

WEIGHT_DECAY = {"adamw": 0.05, "adam": 0.0, "sgd": 5e-4}
"""The optimisers, and the default weight decay of each."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Config, panel="Training"):
    """Settings of the loop; None selects the default of the data set, the backbone or the optimiser."""

    epochs: int | None = option(
        None,
        "Number of passes over the training images.",
        shown="the data set's and backbone's",
        at_least=1,
        resolved=True,
    )
    batch_size: int | None = option(
        None, "Number of images in a training step.", shown="24 to 192", at_least=1, resolved=True
    )
    lr: float | None = option(
        None, "Peak learning rate.", shown="the backbone's; sgd: 0.1", above=0, example=0.001
    )
    optimizer: str = option(
        "adamw",
        "Optimiser: adamw, adam, or sgd (with Nesterov momentum 0.9).",
        choices=tuple(WEIGHT_DECAY),
    )
    weight_decay: float | None = option(
        None,
        "Weight decay of kernels and matrices.",
        shown="0.05, 0 or 0.0005, the optimiser's",
        at_least=0,
    )
    schedule: str = option(
        "one-cycle",
        "Schedule of the learning rate: one-cycle, cosine, step (a tenth after half of the steps, a hundredth"
        " after three quarters), or constant.",
        choices=tuple(SCHEDULES),
    )
    clip_norm: float = option(
        1.0, "Largest norm of a gradient; longer gradients are scaled down. 0: no limit.", at_least=0
    )
    label_smoothing: float = option(
        0.0, "Fraction of a label's weight that is spread over all classes.", at_least=0, below=1
    )
    average: str = option(
        "none",
        "Average of the weights that replaces the final ones: none, ema (over all steps), swa (over the last"
        " quarter's epochs).",
        choices=("none", "ema", "swa"),
    )
    clean_epochs: int = option(
        0, "Number of epochs on clean images before adversarial training begins.", at_least=0
    )
    early_stop: int | None = option(
        None,
        "Number of epochs without a higher PGD-5 accuracy after which training stops and keeps the best"
        " weights. The accuracy is measured on a twentieth of the training images (64 to 1000), held out.",
        shown="train to the end",
        at_least=1,
    )
    train: str = option(
        "all",
        "Part of the network that is trained: head, last:N layers, all, or stages: head:epochs=2,all.",
    )
    head_rate: float = option(1.0, "Learning rate of the head, as a multiple of the other layers'.", above=0)
    progressive: float = option(
        1.0,
        "Progressive resizing: the image side at the start of training, as a fraction of the full side. It"
        " grows in two steps and is full for the last 40 % of the epochs.",
        shown="1.0: full size throughout",
        above=0,
        at_most=1,
        example=0.5,
    )
