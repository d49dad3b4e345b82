"""The label of a variant: precision, memory layout, and whether batch norm is fused.

Run files and records hold its text; code compares the parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
Layout = Literal["as given", "channels-last", "contiguous"]

_FUSED = "folded"


@dataclass(frozen=True)
class VariantLabel:
    """The kind of a variant. The default is the model itself.

    ``str`` gives ``float32`` for the model itself, else a text such as ``tf32, channels-last, folded``.
    :meth:`parse` reads this text.

    Attributes:
        precision: ``float32``, ``tf32``, ``bfloat16`` or ``float16``.
        layout: memory layout of weights and images; ``as given`` for the model itself.
        fused: True for a rewritten copy of the model, with batch norm fused into the convolutions.
    """

    precision: Precision = "float32"
    layout: Layout = "as given"
    fused: bool = False

    @classmethod
    def parse(cls, text: str) -> VariantLabel | None:
        """The label with this text; None if no variant has it."""
        return _LABELS.get(text)

    @property
    def channels_last(self) -> bool:
        """True if the channels lie innermost in memory."""
        return self.layout == "channels-last"

    @property
    def autocasts(self) -> bool:
        """True if the variant runs under autocast, in a type other than float32."""
        return self.precision in ("bfloat16", "float16")

    def __str__(self) -> str:
        return f"{self.precision}, {self.layout}, {_FUSED}" if self.fused else self.precision


MODEL = VariantLabel()
"""The label of the model itself."""

_LABELS = {
    str(label): label
    for label in (
        MODEL,
        *(
            VariantLabel(precision, layout, fused=True)
            for precision in get_args(Precision)
            for layout in ("channels-last", "contiguous")
        ),
    )
}
