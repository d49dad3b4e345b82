"""The choice of the variant of a model that an attack searches with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from robustbench_tin.attacks.acceleration.selection import SelectedVariants
from robustbench_tin.attacks.acceleration.variant_cache import VariantCache
from robustbench_tin.attacks.acceleration.variant_label import MODEL, VariantLabel
from robustbench_tin.attacks.acceleration.variants import ModelVariant

if TYPE_CHECKING:
    from robustbench_tin.attacks.engine.spot_checks import WrongVariantError


class SearchVariant:
    """The variant that an attack searches with; the model itself until :meth:`prepare` selects another.

    Args:
        model: the model to search with, or its surrogate.
        variants: the cache of its variants.

    Attributes:
        itself: the model as a variant.
        used: variants other than the model that were used since the last selection, by the identity of
            their modules.
        wrong: the reason why a variant was wrong; None if none was.
    """

    def __init__(self, model: nn.Module, variants: VariantCache) -> None:
        self.itself = ModelVariant(model)
        self.used: dict[int, ModelVariant] = {}
        self.wrong: WrongVariantError | None = None
        self._variants = variants
        self._selected: SelectedVariants | None = None

    def prepare(self, images: Tensor, search: str) -> None:
        """Select the variants; the arguments are those of :meth:`VariantCache.choose`."""
        self._selected = self._variants.choose(search, self.itself.module, images)
        self.used = {}

    def refute(self, error: WrongVariantError) -> None:
        """Use the model itself from now on, because a variant was wrong."""
        self.wrong = error
        self._variants.refute(error.label)
        self.used = {}

    def variant(self, *, precise: bool = False) -> ModelVariant:
        """The variant to search with; if ``precise``, one in float32."""
        if self._selected is None:
            return self.itself
        return self._noted(self._selected.variant(precise=precise))

    def forward_only(self, *, precise: bool = False) -> ModelVariant:
        """The variant for logits without gradients; if ``precise``, one in float32."""
        if not precise or self._selected is None:
            return self.variant()
        return self._noted(self._selected.forward_only())

    def label(self, *, precise: bool = False) -> VariantLabel:
        """The label of the variant; asking for it does not make the variant."""
        return MODEL if self._selected is None else self._selected.labels[precise]

    def _noted(self, variant: ModelVariant) -> ModelVariant:
        if not variant.is_model:
            self.used[id(variant.module)] = variant
        return variant
