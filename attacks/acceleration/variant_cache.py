"""The cache of a model's variants: each search setting selects once, and a run that continues reuses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.acceleration.selection import (
    SelectedVariants,
    select_fastest,
    select_labelled,
)
from robustbench_tin.attacks.acceleration.variant_label import MODEL, VariantLabel
from robustbench_tin.attacks.engine.rng import own_randomness
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.strict_float32 import has_tf32

SEARCHES = ("auto", "fixed", "fastest", "exact")
"""Search settings. Each selects a variant; if it does not agree with the model, the model itself.

``exact``: the model itself. ``fixed``: batch norm fused, channels last, in TF32 if the GPU has it, else in
float32. ``fastest``: the fastest variant, by timing. ``auto`` leaves the choice to the caller; here it is
``fastest``.
"""

# Number of images for the selection, as a part of those under attack, and its bounds.
_PROBED_PART = 1 / 16
_FEWEST_PROBED, _MOST_PROBED = 32, 48

_Pair = tuple[VariantLabel, VariantLabel]
_FUSED = VariantLabel("float32", "channels-last", fused=True)
_FIXED: dict[str, _Pair] = {"exact": (MODEL, MODEL), "fixed": (_FUSED, _FUSED)}
_FIXED_ON_GPU: _Pair = (VariantLabel("tf32", "channels-last", fused=True), _FUSED)
# The key of the wrong variants among the labels of a run file.
_REFUTED = "refuted"


class VariantCache:
    """The variants of one model, selected once for each search setting.

    Args:
        recalled: :attr:`labels` of an earlier cache, so that a run that continues, or is checked later,
            searches with the same variants.
    """

    def __init__(self, recalled: Mapping[str, Sequence[str]] | None = None) -> None:
        known = dict(recalled or {})
        self._refuted = set(known.pop(_REFUTED, ()))
        self._recalled = {search: _parsed(texts) for search, texts in known.items() if len(texts) == 2}
        self._selected: dict[str, SelectedVariants] = {}
        self._selected_for: dict[str, nn.Module] = {}

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The labels of the selected and of the wrong variants, as texts for a run file."""
        pairs = self._recalled | {search: selected.labels for search, selected in self._selected.items()}
        texts: dict[str, tuple[str, ...]] = {
            search: (str(fast), str(precise)) for search, (fast, precise) in pairs.items()
        }
        return texts | ({_REFUTED: tuple(sorted(self._refuted))} if self._refuted else {})

    def choose(self, search: str, model: nn.Module, images: Tensor) -> SelectedVariants:
        """The variants for one search setting; the model itself once any variant was wrong.

        Args:
            search: one of :data:`SEARCHES`.
            model: frozen and in eval mode.
            images: similar to those under attack, float32 ``(N, C, H, W)``, such as
                :func:`robustbench_tin.attacks.engine.image_batches.drawn` returns; :func:`probed` gives
                their number.

        Raises:
            InvalidSettingError: if the setting is unknown.
        """
        if search not in SEARCHES:
            raise InvalidSettingError(f"search got '{search}'; expected one of {', '.join(SEARCHES)}")
        search = "fastest" if search == "auto" else search
        if search not in self._selected or self._selected_for.get(search) is not model:
            self._selected_for[search] = model
            images = images[:_MOST_PROBED]
            labels = self._known_labels(search, images.device)
            # The number of passes of the selection must not change the later draws of a random model.
            with own_randomness(images.device):
                self._selected[search] = (
                    select_fastest(model, images)
                    if labels is None
                    else select_labelled(model, images, labels)
                )
        return self._selected[search]

    def refute(self, label: VariantLabel) -> None:
        """Use the model itself from now on, in every setting, because the variant of this label was wrong."""
        self._refuted.add(str(label))
        for selected in self._selected.values():
            selected.refute()

    def misled(self, label: str) -> bool:
        """True if a search used the variant with this label, and any variant was wrong since."""
        return bool(self._refuted) and label != str(MODEL)

    def _known_labels(self, search: str, device: torch.device) -> _Pair | None:
        """The labels of a search setting; None if timing decides."""
        if self._refuted:
            return _FIXED["exact"]
        if search in self._recalled:
            return self._recalled[search]
        return _FIXED_ON_GPU if search == "fixed" and has_tf32(device) else _FIXED.get(search)


def _parsed(texts: Sequence[str]) -> _Pair:
    """Labels of a run file, which may have been edited: an invalid text means the model itself."""
    fast, precise = (VariantLabel.parse(text) or MODEL for text in texts)
    return fast, precise


def probed(attacked: int) -> int:
    """The number of images for the selection of variants.

    Args:
        attacked: number of images under attack.
    """
    return max(_FEWEST_PROBED, min(_MOST_PROBED, int(attacked * _PROBED_PART)))
