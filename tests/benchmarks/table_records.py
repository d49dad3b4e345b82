"""Records made by hand, as tables take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustbench_tin.benchmarks.codes.status import Status
from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason


def row(
    model: str,
    attack: str,
    eps: float,
    top1: float | None,
    *,
    status: str = "ok",
    above_chance: bool = True,
    seed: int = 0,
    **changed: Any,
) -> dict[str, Any]:
    """One record; its interval reaches ten points either way."""
    known = Status.parse(status)
    assert known is not None
    return {
        **{"model": model, "attack": attack, "eps": eps, "seed": seed, "above_chance": above_chance},
        **{"status": status, "status_code": known.code, "defense": "none", "norm": "linf", "n": 50},
        **{"data": "demo", "classes": 10, "mode": "fixed budget", "remark_list": [], "trust_codes": None},
        **{"eot": 1, "oblivious": False, "eight_bit": False},
        **figures("top1", top1),
        **figures("top5", top1),
        **changed,
    }


def figures(name: str, rate: float | None) -> Mapping[str, float | None]:
    """An accuracy and its interval."""
    if rate is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    return {name: rate, f"{name}_low": rate - 0.1, f"{name}_high": rate + 0.1}


def codes(*texts: str) -> list[dict[str, object]]:
    """Doubts of these texts, as records have them."""
    return [Reason.of(TrustCode.earlier, text=text).model_dump(mode="json") for text in texts]
