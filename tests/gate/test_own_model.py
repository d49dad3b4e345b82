"""Models of one's own: built, scripted, exported; measured alike, refused in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from drawn_sets import save
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from robustbench_tin.benchmarks.gate.baseline import make_baseline
from robustbench_tin.benchmarks.gate.baseline_io import read_baseline
from robustbench_tin.benchmarks.gate.check import check
from robustbench_tin.benchmarks.gate.comparison_mode import ComparisonMode
from robustbench_tin.benchmarks.gate.rules import Rules
from robustbench_tin.benchmarks.gate.user_model import UserModelSettings, UserModelSource, measure
from robustbench_tin.cli.app import app
from robustbench_tin.errors import RobustTinError
from robustbench_tin.models import user_model as own_module
from robustbench_tin.models.user_model import load_user_model

SOURCE = """
import torch
from torch import nn


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 8, stride=8),
        nn.Flatten(), nn.Linear(32, 10),
    )


def needs(argument):
    return net()


def nothing():
    return 3


broken = "text"
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def built(source: Path) -> nn.Module:
    return load_user_model(f"{source}:net").module


def export(model: nn.Module, path: Path) -> None:
    torch.onnx.export(
        model,
        (torch.rand(2, 3, 64, 64),),
        path,
        dynamo=False,
        input_names=["images"],
        dynamic_axes={"images": {0: "n"}},
    )


def accuracies(spec: str, **options) -> dict[str, float | None]:
    candidate = UserModelSource(
        model=spec, eval_images=40, attacks=options.pop("attacks", "fgsm"), eps="0.02", trust=False, **options
    ).measure()
    return {figure.key.label: figure.record.top1 for _, figure in candidate.figures}


def test_a_module_a_script_and_an_onnx_file_of_one_network_have_the_same_figures(
    source: Path, built: nn.Module, tmp_path: Path
) -> None:
    script, onnx = tmp_path / "net.pt", tmp_path / "net.onnx"
    torch.jit.trace(built, torch.rand(2, 3, 64, 64)).save(script)
    export(built, onnx)
    first = accuracies(f"{source}:net")
    assert set(first) == {"clean", "fgsm@0.02"}
    assert accuracies(str(script)) == first
    assert accuracies(str(onnx)) == first
    assert load_user_model(str(script)).weights == load_user_model(f"{source}:net").weights


def test_an_onnx_file_that_torch_cannot_hold_is_a_black_box_and_says_so(
    built: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = tmp_path / "net.onnx"
    export(built, onnx)
    import onnx2torch

    def unknown(graph: object) -> nn.Module:
        raise NotImplementedError("Converter is not implemented (Einsum)")

    monkeypatch.setattr(onnx2torch, "convert", unknown)
    own = load_user_model(str(onnx))
    assert own.notes[0].startswith("no gradients: its conversion to torch failed (NotImplementedError")
    images = torch.rand(4, 3, 64, 64)
    torch.testing.assert_close(own.module(images), built(images), rtol=1e-4, atol=1e-5)
    assert accuracies(str(onnx), attacks="square:queries=5")["square:queries=5@0.02"] is not None
    monkeypatch.setattr(
        "robustbench_tin.benchmarks.measurement.black_box_stand_in.STAND_IN", "square:queries=5"
    )
    assert set(accuracies(str(onnx))) == {"clean", "square:queries=5@0.02"}

    # A conversion that answers otherwise is worse than none.
    monkeypatch.setattr(onnx2torch, "convert", lambda graph: nn.Sequential(built, nn.Softmax(1)))
    assert load_user_model(str(onnx)).gradients
    assert not load_user_model(str(onnx)).confirmed(images).gradients


def test_an_onnx_file_for_batches_of_one_size_is_measured(built: nn.Module, tmp_path: Path) -> None:
    onnx = tmp_path / "net.onnx"
    torch.onnx.export(built, (torch.rand(3, 3, 64, 64),), onnx, dynamo=False)
    images = torch.rand(8, 3, 64, 64)
    own = load_user_model(str(onnx))
    torch.testing.assert_close(own.original(images), built(images), rtol=1e-4, atol=1e-5)
    assert own.confirmed(images).gradients
    with pytest.raises(RobustTinError, match=r"'net' fails on images of shape \(8, 3, 32, 32\)"):
        own.confirmed(torch.rand(8, 3, 32, 32))


def test_a_conversion_that_fails_is_worse_than_none(
    built: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(built, tmp_path / "net.onnx")
    import onnx2torch

    monkeypatch.setattr(onnx2torch, "convert", lambda graph: nn.Flatten(9))
    own = load_user_model(str(tmp_path / "net.onnx")).confirmed(torch.rand(4, 3, 64, 64))
    assert not own.gradients
    assert own.notes[0].startswith("no gradients: its conversion to torch fails (IndexError")


KINDS = """
import torch
from torch import nn


class Extra(nn.Module):
    def __init__(self, labels):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.Flatten(), nn.Linear(4 * 16 * 16, 10))
        self.labels = labels

    def forward(self, images):
        return self.body(images)

    def get_extra_state(self):
        return {"labels": self.labels, "more": [torch.ones(2)]}

    def set_extra_state(self, state):
        pass


def extra(seed=0):
    torch.manual_seed(seed)
    return Extra(["a", "b"])


def other():
    return extra(1)


def quantised(seed=0):
    return torch.ao.quantization.quantize_dynamic(extra(seed).body, {nn.Linear}, dtype=torch.qint8)


def other_quantised():
    return quantised(1)


def function():
    body = extra().body
    return lambda images: body(images)
"""


@pytest.mark.filterwarnings("ignore")
def test_states_that_hold_more_than_tensors_have_a_digest(tmp_path: Path) -> None:
    (tmp_path / "kinds.py").write_text(KINDS)

    def digest(name: str) -> str | None:
        return load_user_model(f"{tmp_path}/kinds.py:{name}").weights

    for one, other in (("extra", "other"), ("quantised", "other_quantised")):
        assert digest(one) == digest(one)
        assert None not in (digest(one), digest(other))
        assert digest(one) != digest(other)
    # Its other content is not known.
    assert digest("function") is None


@pytest.mark.filterwarnings("ignore")
def test_without_gradients_the_default_attacks_give_way_to_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "robustbench_tin.benchmarks.measurement.black_box_stand_in.STAND_IN", "square:queries=5"
    )
    (tmp_path / "kinds.py").write_text(KINDS)
    own = load_user_model(f"{tmp_path}/kinds.py:quantised")
    images, labels = torch.rand(8, 3, 64, 64), torch.zeros(8, dtype=torch.long)
    said: list[str] = []
    candidate = measure(own, images, labels, UserModelSettings(eps="0.02"), warn=said.append)
    assert [figure.key.label for _, figure in candidate.figures] == ["clean", "square:queries=5@0.02"]
    (line,) = said
    assert line.startswith("quantised: fgsm, pgd not measured: the model gives no gradients")
    # Gradients that are gone are no way around a floor, nor around a baseline of attacks that need them.
    with pytest.raises(RobustTinError, match="matches no measurement"):
        check(candidate, None, Rules().then((), ["fgsm@0.02=0"], None))
    sound = measure(
        load_user_model(f"{tmp_path}/kinds.py:extra"), images, labels, UserModelSettings(eps="0.02")
    )
    make_baseline([sound]).write(tmp_path / "baseline.json")
    rules = Rules(allow_untrained=True)
    report = check(candidate, tmp_path / "baseline.json", rules, forced_mode=ComparisonMode.same_weights)
    assert report.exit_code == 2


def test_a_factory_may_give_a_function(tmp_path: Path) -> None:
    (tmp_path / "kinds.py").write_text(KINDS)
    own = load_user_model(f"{tmp_path}/kinds.py:function")
    images, labels = torch.rand(8, 3, 64, 64), torch.zeros(8, dtype=torch.long)
    candidate = measure(own, images, labels, UserModelSettings("fgsm", "0.02"))
    assert [str(figure.record.status) for _, figure in candidate.figures] == ["ok", "ok"]


@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_is_read_from_its_file(source: Path, built: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(built.eval(), (torch.rand(4, 3, 64, 64),)), file)
    own, images = load_user_model(str(file)), torch.rand(6, 3, 64, 64)
    torch.testing.assert_close(own.module(images), built(images))
    assert own.weights == load_user_model(f"{source}:net").weights
    (tmp_path / "bad.pt2").write_bytes(b"no program")
    with pytest.raises(RobustTinError, match=r"bad.pt2' is not an exported program"):
        load_user_model(str(tmp_path / "bad.pt2"))


def test_weights_that_became_constants_are_told_apart(source: Path, built: nn.Module, tmp_path: Path) -> None:
    digests = []
    for name in ("one", "other"):
        torch.jit.freeze(torch.jit.script(built)).save(tmp_path / f"{name}.pt")
        export(built, tmp_path / f"{name}.onnx")
        graph = onnx.load(tmp_path / f"{name}.onnx")
        held = list(graph.graph.initializer)
        del graph.graph.initializer[:]
        for tensor in held:
            graph.graph.node.insert(0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))
        onnx.save(graph, tmp_path / f"{name}.onnx")
        digests.append([load_user_model(str(tmp_path / f"{name}.{kind}")).weights for kind in ("pt", "onnx")])
        with torch.no_grad():
            built[0].weight += 0.1
    assert None not in digests[0]
    assert all(one != other for one, other in zip(*digests, strict=True))


def test_a_model_that_shows_no_weights_has_no_digest(tmp_path: Path) -> None:
    """Two of them cannot be told apart: a check asks which question it is."""
    (tmp_path / "bare.py").write_text("from torch import nn\n\n\ndef net():\n    return nn.Flatten()\n")
    assert load_user_model(f"{tmp_path}/bare.py:net").weights is None


FILE = """
from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass
class Width:
    number: int = 3


def net():
    import beside

    return nn.Linear(Width().number, beside.CLASSES)


def ends():
    raise SystemExit(0)
"""


def test_a_file_may_hold_dataclasses_and_import_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "beside.py").write_text("CLASSES = 7\n")
    before = list(sys.path)
    assert load_user_model(f"{tmp_path}/mine.py:net").module.out_features == 7
    assert sys.path == before


def test_a_model_that_ends_the_program_does_not_pass(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "script.py").write_text("raise SystemExit(0)\n")
    for spec in ("mine.py:ends", "script.py:net"):
        with pytest.raises(RobustTinError, match="SystemExit: 0"):
            load_user_model(f"{tmp_path}/{spec}")


def test_a_baseline_that_cannot_be_read_is_told_before_anything_is_measured(source: Path) -> None:
    words = ["check", "--model", "no_such_package:net", "--baseline", "absent.json"]
    assert "absent.json" in str(CliRunner().invoke(app, words).exception)


def test_weights_are_put_into_what_is_built(source: Path, built: nn.Module, tmp_path: Path) -> None:
    state = {name: torch.zeros_like(value) for name, value in built.state_dict().items()}
    save_file(state, tmp_path / "zeros.safetensors")
    own = load_user_model(f"{source}:net", tmp_path / "zeros.safetensors")
    assert not any(value.any() for value in own.module.state_dict().values())
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(RobustTinError, match="do not fit this model"):
        load_user_model(f"{source}:net", tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mine", "expected package.module:factory"),
        ("no_such_package:net", "cannot be imported"),
        ("{}:missing", "has no function 'missing'"),
        ("{}:broken", "has no function 'broken'"),
        ("{}:needs", "expected a function without arguments"),
        ("{}:nothing", "returned a int; expected a torch module"),
        ("absent.py:net", "is not a file"),
        ("absent.onnx", "is not a file"),
        ("{}.pt", "is not a TorchScript file"),
        ("{}.onnx", "is not an ONNX file"),
    ],
)
def test_what_is_no_model_is_one_line(source: Path, spec: str, message: str) -> None:
    for suffix in (".pt", ".onnx"):
        Path(f"{source}{suffix}").write_bytes(b"not a model")
    with pytest.raises(RobustTinError, match=message) as caught:
        load_user_model(spec.format(source))
    assert "\n" not in str(caught.value)


def test_without_onnx_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.onnx").touch()
    monkeypatch.setattr(own_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RobustTinError, match=r"pip install 'robustbench-tin\[onnx\]'"):
        load_user_model(str(tmp_path / "net.onnx"))


def test_the_command_checks_it_and_its_update_is_a_command(source: Path, tmp_path: Path) -> None:
    runner, file = CliRunner(), tmp_path / "baseline.json"
    words = [
        "--model",
        f"{source}:net",
        "--eval-images",
        "40",
        "--attacks",
        "fgsm",
        "--eps",
        "0.02",
        "--no-trust",
    ]
    made = runner.invoke(app, ["baseline", *words, "--out", str(file)])
    assert made.exit_code == 0, made.output
    assert "is not above chance" in made.output
    rules = ["--baseline", str(file), "--max-drop", "0.2"]
    checked = runner.invoke(app, ["check", *words, *rules, "--allow-untrained"])
    assert checked.exit_code == 0, checked.output
    untrained = runner.invoke(app, ["check", *words, *rules])
    assert untrained.exit_code == 1
    assert "is not above chance for 10 classes" in untrained.output
    assert "Robustness check passed: 2 measurements: 2 not worse." in checked.output
    command = UserModelSource(
        model=f"{source}:net", eval_images=40, attacks="fgsm", eps="0.02", trust=False
    ).command
    again = runner.invoke(app, ["baseline", *command.split(), "--out", str(tmp_path / "again.json")])
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again.json").read_bytes() == file.read_bytes()


def test_it_is_measured_in_memory_too(built: nn.Module) -> None:
    own = own_module.UserModel(built, "net", "w")
    candidate = measure(
        own, torch.rand(8, 3, 64, 64), torch.zeros(8, dtype=torch.long), UserModelSettings("fgsm", "0.02")
    )
    assert [figure.key.label for _, figure in candidate.figures] == ["clean", "fgsm@0.02"]


PERFECT = """
import torch
from torch import nn


class Perfect(nn.Module):
    # Red images are class 0, green ones class 1.
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images):
        light = images.mean((2, 3))
        return 10 * self.scale * torch.stack([light[:, 0] - light[:, 1], light[:, 1] - light[:, 0]], 1)


def build():
    return Perfect()


class Expects(Perfect):
    def forward(self, images):
        return super().forward(images * 0.5 + 0.5)


def expects():
    return Expects()
"""


@pytest.fixture
def colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes by colour in Tiny ImageNet's layout, whose wnids.txt is not sorted, and models of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUST_TIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine.py").write_text(PERFECT)
    lines = []
    for channel, wnid in enumerate(("n01", "n02")):
        for number in range(20):
            pixels = np.full((64, 64, 3), 60, np.uint8)
            pixels[..., channel] = 180 + number
            row = 20 * channel + number
            for name in (f"train/{wnid}/images/{wnid}_{number}.JPEG", f"val/images/v{row}.JPEG"):
                save(tmp_path / "data" / name, Image.fromarray(pixels))
            lines.append(f"v{row}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    (tmp_path / "data/wnids.txt").write_text("n02\nn01\n")
    (tmp_path / "data/val/val_annotations.txt").write_text("".join(lines))
    (tmp_path / "order.txt").write_text("n01\nn02\n")
    return tmp_path


def clean_of(words: list[str]) -> tuple[float, str]:
    command = "baseline --data data --attacks fgsm --eps 0.01 --no-trust --out b.json"
    made = CliRunner().invoke(app, [*command.split(), *words])
    assert made.exit_code == 0, made.output
    (entry,) = read_baseline(Path("b.json")).entries
    return next(measure for measure in entry.measures if measure.attack == "clean").right[0] / 40, made.output


def test_the_order_of_the_classes_is_named_and_can_be_given(colours: Path) -> None:
    clean, said = clean_of(["--model", "mine.py:build"])
    assert clean == 0
    assert "give --class-order sorted" in " ".join(said.split())
    for order in ("sorted", "order.txt"):
        clean, said = clean_of(["--model", "mine.py:build", "--class-order", order])
        assert clean == 1
        assert "class-order" not in said


def test_normalisation_can_be_given(colours: Path) -> None:
    words = ["--model", "mine.py:expects", "--class-order", "sorted"]
    for extra in (["--normalize", "half"], ["--mean", "0.5", "--std", "0.5,0.5,1/2"]):
        assert clean_of([*words, *extra])[0] == 1
    for extra, told in (
        (["--normalize", "imagenet", "--mean", "0.5"], "got both --normalize and --mean"),
        (["--normalize", "cifar"], "normalize got 'cifar'; expected imagenet, half or auto"),
        (["--mean", "a,b"], "mean got 'a,b'"),
        (["--mean", "0.5"], "got mean without std"),
        (["--class-order", "other"], "class-order got 'other'"),
        (["--eps", "8"], "eps got 8; expected at most 1 in linf"),
    ):
        made = CliRunner().invoke(app, ["baseline", *words, "--data", "data", *extra])
        assert told in str(made.exception)


def test_a_floor_for_a_budget_of_255_is_refused_before_anything_is_measured() -> None:
    words = ["check", "--model", "no_such_package:net", "--min", "fgsm@8=0.2"]
    assert "rule 'fgsm@8=0.2' got eps 8; expected at most 1" in str(CliRunner().invoke(app, words).exception)
