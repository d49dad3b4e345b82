"""The attacked model: a model as an attack sees it, with every pass counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.acceleration.variant_cache import VariantCache
from robustbench_tin.attacks.acceleration.variants import ModelVariant
from robustbench_tin.attacks.engine.failure import AttackFailure
from robustbench_tin.attacks.engine.frozen_model import FrozenModels
from robustbench_tin.attacks.engine.gradient_check import missing_gradient
from robustbench_tin.attacks.engine.model_passes import Choose, Length, ModelPasses, RowLoss
from robustbench_tin.attacks.engine.noted_logits import NotedLogits
from robustbench_tin.attacks.engine.search_variant import SearchVariant
from robustbench_tin.attacks.engine.state import ModelOutput
from robustbench_tin.attacks.engine.variant_comparison import count_differing
from robustbench_tin.attacks.losses import cross_entropy

if TYPE_CHECKING:
    from robustbench_tin.attacks.engine.spot_checks import WrongVariantError

__all__ = ["AttackFailure", "AttackedModel"]

Loss = Callable[[Tensor, Tensor], Tensor]


class AttackedModel:
    """A model as an attack sees it: it gives logits and gradients, and counts each pass.

    Use it as a context manager. Inside, the model is in eval mode and its parameters are frozen. On exit,
    modes, flags, weights, buffers and random states are restored. One thread at a time can be inside an
    attacked model, whichever model it is; others wait.

    The random draws of the model itself (of a defense that is random at test time) depend only on the seed.
    If memory runs out, all later passes take half the number of images.

    A logit or gradient that is not finite raises :class:`AttackFailure`: at once on a CPU, and on a GPU,
    which the host would have to wait for, at the next :meth:`logits` or :meth:`require_finite`, or on exit.

    Args:
        model: maps float32 pixels in [0, 1] to logits.
        eot: number of passes averaged for one gradient, for models that are random at test time (expectation
            over transformations; Athalye, Engstrom, Ilyas and Kwok, 2018, arXiv 1707.07397).
        surrogate: another model to search with, for attacks that do not know the model. The model itself
            still verifies the results.
        variants: the cache of the variants to search with; None: an empty one.
        seed: seed of the model's own randomness.

    >>> from robustbench_tin.testing import toy_problem
    >>> toy = toy_problem(4)
    >>> with AttackedModel(toy.model) as attacked:
    ...     gradient = attacked.gradient(toy.images, toy.labels)
    >>> gradient.shape, attacked.forward_passes, attacked.backward_passes
    (torch.Size([4, 3, 16, 16]), 4, 4)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        eot: int = 1,
        surrogate: nn.Module | None = None,
        variants: VariantCache | None = None,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.eot = eot
        self._itself = ModelVariant(model)
        searched = model if surrogate is None else surrogate
        models = [model] if searched is model else [model, searched]
        device = next((p.device for p in (*model.parameters(), *model.buffers())), torch.device("cpu"))
        self._frozen = FrozenModels(models, device, seed)
        self._passes = ModelPasses(self._frozen.thaw)
        self._search = SearchVariant(searched, variants or VariantCache())
        self._noted = NotedLogits()

    def __enter__(self) -> Self:
        self._frozen.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        try:
            if kind is None:
                self.require_finite()
        finally:
            self._passes.finite.clear()
            self._frozen.__exit__(kind, *details)

    # Queries of attacks

    def logits(self, images: Tensor) -> Tensor:
        """The model's own logits, float32 ``(N, C)``, without a graph; every verification uses them.

        Raises:
            AttackFailure: if a logit is not finite.
        """
        logits = self._passes.logits(self._itself, images)
        self.require_finite()
        return logits

    def search_logits(self, images: Tensor, *, precise: bool = False) -> Tensor:
        """Logits for a search without gradients, ``(N, C)``, of the variant to search with.

        Args:
            images: float32 ``(N, C, H, W)``.
            precise: compute in float32, not in a lower precision.

        Raises:
            AttackFailure: as :meth:`logits`.
        """
        return self._passes.logits(self._search.forward_only(precise=precise), images)

    def gradient(self, images: Tensor, labels: Tensor, loss: Loss | None = None) -> Tensor:
        """Gradient of each image's loss with respect to its pixels, ``(N, C, H, W)``.

        Args:
            images: float32 ``(N, C, H, W)``.
            labels: int64 ``(N,)``.
            loss: from logits and labels to a loss per image ``(N,)``; None: cross-entropy.

        Raises:
            AttackFailure: if a logit or gradient is not finite, or the logits have no gradient.
        """
        # A copy: autograd refuses to save labels that were made in inference mode.
        labels = labels.clone()
        chosen = loss or cross_entropy
        gradient = self.ask(images, lambda logits, rows: chosen(logits, labels[rows])).gradient
        assert gradient is not None
        return gradient

    def ask(
        self, images: Tensor, loss: RowLoss, *, precise: bool = False, eot: int | None = None
    ) -> ModelOutput:
        """Logits, losses and their gradients at some points, from one forward and one backward pass each.

        Args:
            images: float32 ``(N, C, H, W)``.
            loss: from logits ``(n, C)`` and the slice of their rows to a loss per row ``(n,)``.
            precise: compute in float32, not in a lower precision.
            eot: number of passes averaged; None: that of the attacked model.

        Raises:
            AttackFailure: if a logit or gradient is not finite, or the logits have no gradient.
        """
        variant = self._search.variant(precise=precise)
        output = self._passes.gradient(variant, images, loss, self.eot if eot is None else eot)
        if variant.module is self.model and variant.precision == "float32":
            self._noted.offer(images, output.logits)
        return output

    def ask_chosen(
        self, images: Tensor, losses: RowLoss, length: Length, choose: Choose, *, precise: bool = False
    ) -> ModelOutput:
        """Like :meth:`ask` with several losses a row, of which each row chooses one.

        The arguments are those of :meth:`ModelPasses.chosen_gradient
        <robustbench_tin.attacks.engine.model_passes.ModelPasses.chosen_gradient>`.

        Raises:
            AttackFailure: as :meth:`ask`.
        """
        variant = self._search.variant(precise=precise)
        return self._passes.chosen_gradient(variant, images, losses, length, choose, self.eot)

    def tracked(self, images: Tensor) -> Tensor:
        """Logits with their graph, float32 ``(N, C)``, for libraries that compute gradients themselves.

        If the images require gradients, the logits are the mean of :attr:`eot` passes.

        Raises:
            AttackFailure: as :meth:`ask`; for a gradient that is not finite, in its backward pass.
        """
        return self._passes.tracked(self._search.variant(precise=True), images, self.eot)

    def require_finite(self) -> None:
        """Raise an :class:`AttackFailure` if a value so far was not finite; this waits for the device."""
        self._passes.finite.require()

    def reseed(self, *key: int | str) -> None:
        """Seed the model's own randomness again; only inside.

        Args:
            key: the seed. Different keys give independent draws, and none repeats those of an attack's
                generator.
        """
        self._frozen.reseed(*key)

    # Counts

    @property
    def forward_passes(self) -> int:
        """Forward passes so far, summed over the images, without those that select and check variants."""
        return self._passes.counts.forward

    @forward_passes.setter
    def forward_passes(self, passes: int) -> None:
        self._passes.counts.forward = passes

    @property
    def backward_passes(self) -> int:
        """The same for backward passes."""
        return self._passes.counts.backward

    @backward_passes.setter
    def backward_passes(self, passes: int) -> None:
        self._passes.counts.backward = passes

    @property
    def variant_passes(self) -> int:
        """Passes of both kinds through a variant other than the model."""
        return self._passes.counts.by_variants

    # The variant to search with

    def prepare(self, images: Tensor, search: str) -> None:
        """Select the variant of the model to search with; without this call, it is the model itself.

        Args:
            images: similar to those under attack, float32 ``(N, C, H, W)``.
            search: one of :data:`robustbench_tin.attacks.acceleration.variant_cache.SEARCHES`.

        Raises:
            InvalidSettingError: if the setting is unknown.
        """
        self._search.prepare(images, search)

    @property
    def search_label(self) -> str:
        """Label of the variant to search with, as in the records: ``bfloat16, channels-last, folded``."""
        return str(self._search.label())

    def searches_model(self, *, precise: bool = False) -> bool:
        """True if searches use the model itself in float32, so that verification gives the same logits."""
        return self._search.itself.module is self.model and not self._search.label(precise=precise).fused

    @property
    def used_variants(self) -> dict[int, ModelVariant]:
        """Variants other than the model that searches used, by the identity of their modules."""
        return self._search.used

    @property
    def wrong_variant(self) -> WrongVariantError | None:
        """The reason why a variant was wrong; None if none was."""
        return self._search.wrong

    def refute_variant(self, error: WrongVariantError) -> None:
        """Search with the model itself from now on, because a variant was wrong."""
        self._search.refute(error)

    def watch_variants(self, on_pass: Callable[[Tensor], None]) -> None:
        """Call a function with the images of each later forward pass of a variant other than the model."""
        self._passes.counts.on_variant = on_pass

    def apart(self, images: Tensor, logits: Tensor | None = None) -> list[tuple[ModelVariant, int]]:
        """For each used variant, the number of images whose logits differ from those of its model.

        Args:
            images: float32 ``(N, C, H, W)``.
            logits: the model's own logits of the first images, ``(n, C)``; None: of none.
        """
        known = logits if self._search.itself.module is self.model else None
        variants = self._search.used.values()
        return count_differing(variants, self._search.itself, images, known, self._passes.uncounted())

    # The model itself

    def note(self, images: Tensor) -> None:
        """Keep the model's logits of exactly these images if an attack queries the model there."""
        self._noted.watch(images)

    @property
    def noted(self) -> Tensor | None:
        """The model's own logits of the images last given to :meth:`note`; None if there was no query."""
        return self._noted.logits

    def called(self, images: Tensor) -> object:
        """The model's own output for images, unchecked, with a graph if gradients are enabled."""
        return self._passes.raw_output(self._itself, images)

    def lacks_gradients(self, images: Tensor) -> str | None:
        """The reason why the model has no gradients with respect to the pixels of images; None if it has."""
        return missing_gradient(self.called, images)
