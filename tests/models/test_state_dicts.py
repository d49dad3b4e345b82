"""Checkpoints as trainers write them: a model's tensors are found in all of them, and never guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from robustbench_tin.errors import WeightsError
from robustbench_tin.models.user_model import load_user_model
from robustbench_tin.models.weights_file import read_weights_file

SOURCE = """
import torch
from torch import nn


def plain():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


class Wrapped(nn.Module):
    def __init__(self, child, buffer=False):
        super().__init__()
        if buffer:
            self.register_buffer("mean", torch.full((3, 1, 1), 0.5))
        setattr(self, child, plain())
        self.child = child

    def forward(self, x):
        return getattr(self, self.child)(x)


def network(): return Wrapped("network")
def module(): return Wrapped("module")
def model(): return Wrapped("model")
def normalised(): return Wrapped("model", buffer=True)
def parallel(): return nn.DataParallel(plain())
def compiled(): return torch.compile(plain())
def deep(): return nn.Sequential(nn.DataParallel(Wrapped("net")))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def built(source: Path, name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return load_user_model(f"{source}:{name}").module


def saved(content: Any, source: Path) -> Path:
    path = source.parent / "weights.pt"
    torch.save(content, path)
    return path


def values(state: dict[str, Tensor]) -> list[Tensor]:
    return [value for value in state.values() if value.is_floating_point() and value.ndim > 0]


def filled(source: Path, name: str, content: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    torch.manual_seed(99)
    own = load_user_model(f"{source}:{name}", saved(content, source))
    return own.module.state_dict(), own.notes


@pytest.mark.parametrize("name", ["plain", "network", "module", "model", "parallel", "compiled", "deep"])
def test_a_models_own_state_dict_is_taken_as_it_is(source: Path, name: str) -> None:
    state = built(source, name, 1).state_dict()
    found, notes = filled(source, name, state)
    assert notes == ()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def front(prefix: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {prefix + key: value for key, value in state.items()}


def noise(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value + 1 for key, value in state.items()}


WRAPS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "DataParallel": front("module."),
    "compiled": front("_orig_mod."),
    "both": front("_orig_mod.module."),
    "AveragedModel": lambda s: {"n_averaged": torch.tensor(7), **front("module.")(s)},
    "net": lambda s: {"net": s, "acc": 93.1, "epoch": 3},
    "state_dict": lambda s: {"state_dict": front("module.")(s), "optimizer": {"state": {0: {"step": 1}}}},
    "model": lambda s: {"model": s, "optimizer": {"param_groups": [{"lr": 0.1}], "state": {}}},
    "Lightning": lambda s: {
        "state_dict": {**front("model.")(s), "loss.weight": torch.ones(3)},
        "pytorch-lightning_version": "2.4",
        "hyper_parameters": {"lr": 0.1},
    },
    "Lightning compiled": lambda s: {"state_dict": front("model._orig_mod.")(s)},
    "two deep": lambda s: {"checkpoint": {"model": front("module.")(s)}},
    "EMA alone": lambda s: {"model_ema": front("module.")(s)},
    "EMA beside": lambda s: {"model": s, "model_ema": noise(s)},
    "EMA with steps": lambda s: {"ema": {"module": s, "num_updates": 3}},
    "optimizer's moments": lambda s: {"moments": {"exp_avg": torch.ones(3)}, "network": s},
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS.keys())
@pytest.mark.parametrize("name", ["plain", "network", "parallel", "normalised"])
def test_checkpoints_of_trainers(source: Path, name: str, wrap: Callable[..., Any]) -> None:
    state = built(source, "plain", 1).state_dict()
    found, notes = filled(source, name, wrap(state))
    # The factory's own buffer comes first, and stays as it was built.
    expected = [torch.full((3, 1, 1), 0.5)] if name == "normalised" else []
    assert all(map(torch.equal, values(found), [*expected, *values(state)]))
    assert len(values(found)) == len(expected) + len(values(state))
    assert len(notes) <= 1
    assert notes == () or "\n" not in notes[0]


def test_what_was_done_is_said(source: Path) -> None:
    state = built(source, "plain", 1).state_dict()
    _, (note,) = filled(source, "plain", WRAPS["Lightning"](state))
    taken = "taken from 'state_dict'; prefix 'model.' removed"
    assert note == f"weights 'weights.pt': {taken}; 1 other tensor left out"
    _, (note,) = filled(source, "plain", WRAPS["EMA beside"](state))
    assert note == "weights 'weights.pt': taken from 'model'; not used, though they fit: 'model_ema'"
    _, (note,) = filled(source, "normalised", state)
    assert note == "weights 'weights.pt': prefix 'model.' added; as built: mean"


def test_keys_as_they_are_win_over_any_prefix(source: Path) -> None:
    """A wrapper's own state dict keeps its prefixes, although a plain model's file lies in it, too."""
    state = built(source, "plain", 1).state_dict()
    both = {**state, "ema": noise(state)}
    found, notes = filled(source, "plain", both)
    assert notes == ()
    assert torch.equal(found["3.weight"], state["3.weight"])


def test_two_that_fit_equally_well_are_not_chosen_between(source: Path) -> None:
    state = built(source, "plain", 1).state_dict()
    with pytest.raises(WeightsError, match="fit equally well: 'generator', 'critic'"):
        filled(source, "plain", {"generator": state, "critic": noise(state)})
    # The same tensors twice are no choice.
    found, _ = filled(source, "plain", {"first": state, "second": dict(state)})
    assert torch.equal(found["3.weight"], state["3.weight"])


def test_what_does_not_fit_is_refused(source: Path) -> None:
    state = built(source, "plain", 1).state_dict()
    for key in ("0.weight", "1.running_mean"):
        lacking = {name: value for name, value in state.items() if name != key}
        with pytest.raises(WeightsError, match="do not fit this model"):
            filled(source, "plain", {"model": lacking})
    with pytest.raises(WeightsError, match="do not fit this model"):
        filled(source, "plain", {"model": {**state, "0.weight": torch.zeros(4, 3, 1, 1)}})
    with pytest.raises(WeightsError, match="do not fit this model"):
        filled(source, "plain", {"model": {**state, "4.weight": torch.zeros(1)}})
    # A parameter is never left as it was built.
    with pytest.raises(WeightsError, match="do not fit this model"):
        filled(source, "deep", {"0.module.net.0.weight": state["0.weight"]})


def test_averaged_model_of_torch(source: Path) -> None:
    averaged = AveragedModel(built(source, "plain", 1))
    found, _ = filled(source, "plain", averaged.state_dict())
    assert torch.equal(found["0.weight"], averaged.module[0].weight)


def test_float64_weights_keep_their_precision(source: Path) -> None:
    torch.manual_seed(1)
    double = load_user_model(f"{source}:plain").module.double()
    path = saved(double.state_dict(), source)
    fitted = read_weights_file(path).fitted(double)
    assert fitted is not None
    assert fitted.state["0.weight"].dtype == torch.float64


def test_small_files_that_would_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.pt"
    torch.save({"weight": torch.zeros(1).expand(1 << 40)}, path)
    with pytest.raises(WeightsError, match="more than the file can hold"):
        read_weights_file(path)
