"""Presets: their options, flags that win over them, and cells without weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustbench_tin import bench
from robustbench_tin.attacks import parse_attack
from robustbench_tin.benchmarks.planning.config import BenchConfig
from robustbench_tin.defenses import parse_defense
from robustbench_tin.errors import InvalidSettingError, RobustTinError, WeightsError
from robustbench_tin.models import backbones, build_classifier, select
from robustbench_tin.presets import load_preset, preset_names, require_trusted, with_preset
from robustbench_tin.progress import LinesReporter
from robustbench_tin.specs import split_list
from robustbench_tin.threat import parse_eps_list


def test_the_presets_are_those_of_the_docs() -> None:
    assert preset_names() == ["quick", "report", "report-final", "finetune", "scratch", "robust"]


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_asks_for_what_there_is(name: str) -> None:
    preset = load_preset(name)
    options = with_preset(name, {}, BenchConfig)
    assert preset.summary.endswith(".")
    for model in select(options["models"]):
        backbones.get(model).check_size(64, options.get("image_size"))
    for defense in split_list(options.get("defenses", "none")):
        assert parse_defense(defense).sources in ((), ("densenet169",))
    for attack in split_list(options["attacks"]):
        parse_attack(attack).check("linf")
    assert parse_eps_list(options["eps"])[0] == 0
    BenchConfig(**options)


def test_the_report_s_presets_are_its_recipes() -> None:
    table = with_preset("report", {}, BenchConfig)
    assert len(select(table["models"])) == 9
    assert table["pretrained"] is True
    final = with_preset("report-final", {}, BenchConfig)
    assert select(final["models"])[0] == "inceptionv3-final"
    assert (final["epochs"], final["lr"]) == (15, 1e-6)
    assert (final["optimizer"], final["schedule"]) == ("adam", "constant")


def test_a_preset_may_set_the_loop_s_settings(tmp_path: Path) -> None:
    finetune = with_preset("finetune", {}, BenchConfig)
    assert (finetune["lr"], finetune["head"], finetune["label_smoothing"]) == (5e-4, "published", 0.1)
    file = tmp_path / "mine.toml"
    given = {"average": "ema", "early-stop": 2, "train": "head:epochs=1,all", "optimizer": "sgd"}
    file.write_text("[bench]\n" + "\n".join(f"{key} = {value!r}" for key, value in given.items()))
    assert with_preset(file, {}, BenchConfig) == {
        key.replace("-", "_"): value for key, value in given.items()
    }


def test_a_preset_s_bench_is_that_of_its_options_and_what_is_given_wins(small, tmp_path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'summary = "Mine."\n[bench]\nmodels = "timm:test_resnet"\nattacks = "fgsm"\neps = [0.0, 0.02]\n'
        f'epochs = 7\ntrain-per-class = 4\ndata = "{small["data"]}"\n'
    )
    run = bench(preset=file, epochs=1, trust=False, device="cpu", out=tmp_path / "run")
    assert run.plan.models == ("timm:test_resnet",)
    assert run.plan.epochs == (1,)
    assert run.plan.train_images == 12
    assert set(run.records["eps"]) == {0.0, 0.02}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[bench]\nmodls = 'vgg16'", "unknown option 'modls' of preset .*; did you mean 'models'"),
        ("[bench]\nlabel_smooting = 0.1", "'label_smooting' of preset .*; did you mean 'label_smoothing'"),
        ("[bench]\nhead_rate = 'high'", "head_rate = 'high'; expected a number$"),
        ("[bench]\nepochs = 'many'", "epochs = 'many'; expected a whole number$"),
        ("[bench]\nepochs = true", "epochs = True; expected a whole number$"),
        ("[bench]\nworst_case = 'yes'", "worst_case = 'yes'; expected true or false$"),
        ("[bench]\nmodels = 3", "models = 3; expected text or a list$"),
        ("[bench]\neps = [0.1, 'x']", "expected text or a number or a list$"),
        ("models = 'vgg16'", "has models; expected a summary and a table"),
        ("", "has nothing"),
        ("[bench", "is not valid TOML"),
    ],
)
def test_a_file_that_is_no_preset_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(RobustTinError, match=message) as caught:
        bench(preset=file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"), [("qiuck", "did you mean 'quick'"), ("none.toml", "cannot be read")]
)
def test_an_unknown_preset_is_one_line(name: str, message: str) -> None:
    with pytest.raises(RobustTinError, match=message):
        load_preset(name)


def test_weights_given_take_the_place_of_a_preset_s_published_ones() -> None:
    options = with_preset("finetune", {"weights": "mine.safetensors"}, BenchConfig)
    assert "pretrained" not in options
    assert with_preset("finetune", {}, BenchConfig)["pretrained"] is True


def test_the_printed_plan_names_every_cell_and_setting_and_runs_nothing(small) -> None:
    listener = LinesReporter()
    options = {**small, "defenses": "none,augment", "seeds": "0,1"}
    assert bench(**options, print_plan=True, reporter=listener) is None
    assert not small["out"].exists()
    text = "\n".join(listener.lines)
    for defense in ("none", "augment"):
        for seed in (0, 1):
            assert f"timm:test_resnet + {defense}, seed {seed}: 4 epochs; clean, fgsm, pgd:steps=2 at" in text
    assert "batch_size = 24" in text


def test_without_its_weights_a_cell_is_not_measured_and_the_others_are(small, monkeypatch) -> None:
    def build(backbone, *args, pretrained=False, **options):
        if pretrained and backbone.name == "timm:test_efficientnet":
            raise WeightsError("no pretrained weights for backbone 'timm:test_efficientnet': nobody has them")
        return build_classifier(backbone, *args, pretrained=False, **options)

    def found(backbone, *args, pretrained=False, **options):
        return build_classifier(backbone, *args, **options)

    place = "robustbench_tin.benchmarks.cells.cell_context.build_classifier"
    monkeypatch.setattr(place, build)
    options = {**small, "models": "timm:test_efficientnet,timm:test_resnet", "pretrained": True}
    options |= {"epochs": 1, "attacks": "fgsm", "eps": "0.03", "eval_images": 6}
    with pytest.raises(WeightsError):
        bench(**options)
    run = bench(**options, skip_missing_weights=True)
    records = run.records.set_index("model")
    missing = records.loc["timm:test_efficientnet"]
    assert (missing["status"].str.startswith("not measured: no pretrained weights")).all()
    assert missing["top1"].isna().all()
    assert (records.loc["timm:test_resnet"]["status"] == "ok").all()
    text = run.tables[0].markdown()
    (row,) = [line for line in text.splitlines() if line.startswith("| timm:test_efficientnet |")]
    assert row.count("not measured") == 4
    assert text.count("nobody has them") == 1
    assert not run.complete
    # Once the weights are available, the same command fetches the missing ones.
    monkeypatch.setattr(place, found)
    assert bench(**options, skip_missing_weights=True).complete


@pytest.mark.parametrize("given", [{"trust_plugins": True}, {"plugins": ["mine.py"]}, {"preset": None}])
def test_plugins_that_were_trusted_or_named_run(tmp_path: Path, given: dict) -> None:
    require_trusted({"preset": _with_plugin(tmp_path), **given})


def test_a_preset_s_plugin_runs_only_if_it_is_trusted(tmp_path: Path) -> None:
    preset = _with_plugin(tmp_path)
    with pytest.raises(InvalidSettingError, match=r"runs the plug-in .*evil.py; read it, then give --trust"):
        bench(preset=preset, dry_run=True)
    assert not (tmp_path / "ran").exists()
    bench(preset=preset, dry_run=True, trust_plugins=True, device="cpu")
    assert (tmp_path / "ran").exists()


def _with_plugin(directory: Path) -> Path:
    plugin = directory / "evil.py"
    plugin.write_text(f"from pathlib import Path; Path({str(directory / 'ran')!r}).touch()")
    preset = directory / "shared.toml"
    preset.write_text(f'[bench]\nmodels = "timm:test_resnet"\nplugins = ["{plugin.as_posix()}"]\n')
    return preset
