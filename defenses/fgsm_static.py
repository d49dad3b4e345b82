"""FGSM examples of another model as additional training images, made once."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from robustbench_tin.attacks.engine.adversarial_sets import adversarial_batches
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.fgsm import FGSM
from robustbench_tin.data.base import Split
from robustbench_tin.defenses.base import Defense
from robustbench_tin.runtime import as_tensor
from robustbench_tin.specs import eps_text
from robustbench_tin.text import counted
from robustbench_tin.threat import ThreatModel, check_length
from robustbench_tin.training.context import Context

# Fixed, not chosen by memory, so that the images are always the same. If memory runs out, the attacked model
# halves its passes.
_BATCH = 100


@dataclass(frozen=True)
class FGSMStatic(Defense):
    """Train on each image twice: unchanged, and attacked once by FGSM on another trained model.

    These are the adversarial images of the Tiny ImageNet report from which this project started; it made them
    on a DenseNet and trained an Inception with them. The step is that of Goodfellow, Shlens and Szegedy,
    2015, "Explaining and Harnessing Adversarial Examples", arXiv 1412.6572, in linf. Images are stored in 8
    bits inside the ball. All images are added, including those that do not fool the source; a note gives
    their number.

    The images do not change during training, so the network does not become robust to attacks on itself; use
    adversarial training for that.

    In a combination, the defenses to the right also get these images. The images have no boxes, so
    ``fgsm-static+bbox-crop`` crops only the originals.

    Attributes:
        source: the model to attack: a backbone's name (trained with ``none`` and the same seed), a run's cell
            (``RUN/CELL``) or a weights file that robust-tin wrote.
        eps: change of each value, in units of the pixel range; at least one level of 8 bits (1/255).
    """

    name: ClassVar[str] = "fgsm-static"
    relative_cost: ClassVar[float] = 2.0

    source: str = "densenet169"
    eps: float = 0.01

    def __post_init__(self) -> None:
        self.require(1 / 255 <= self.eps < math.inf, "eps", "1/255 or more, since images are kept in 8 bits")
        check_length(f"defense '{self.name}' got eps", self.eps)

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    def prepare(self, train: Split, context: Context) -> Split:
        batches = ImageBatches(as_tensor(train.images), as_tensor(train.labels), _BATCH, context.device)
        model = context.trained(self.source)
        fooled = list(adversarial_batches(model, batches, FGSM(), ThreatModel("linf", self.eps)))
        answers = np.concatenate([batch.answers for batch in fooled])
        context.note(
            f"fgsm-static: {counted(len(train), 'image')} moved by eps {eps_text(self.eps)} on {self.source}"
            f" added, of which {(answers != train.labels).sum():,} fool it"
        )
        boxes = train.boxes
        if boxes is not None:
            boxes = np.concatenate([boxes, np.full_like(boxes, -1)])
        return dataclasses.replace(
            train,
            images=np.concatenate([train.images, *(batch.images for batch in fooled)]),
            labels=np.concatenate([train.labels, train.labels]),
            boxes=boxes,
            ids=None,
        )
