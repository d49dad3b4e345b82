"""Model cards: the fields that hubs read, and a check that verifies them from the weights or refutes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import robust_tin
from huggingface_hub import ModelCard, metadata_load
from safetensors.torch import load_file, save_file

from robustbench_tin import bench
from robustbench_tin.benchmarks.evaluate_run import evaluate_run
from robustbench_tin.benchmarks.gate.claims import CLAIMS_FILE, WEIGHTS_FILE, read_claims
from robustbench_tin.benchmarks.gate.model_card import CARD_FILE, write_card
from robustbench_tin.benchmarks.gate.result import CheckReport, CheckStatus, FindingCode
from robustbench_tin.benchmarks.gate.rules import Rules
from robustbench_tin.benchmarks.gate.verify_claims import CardSource, verify_card
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.errors import RobustTinError

CELL = "timm:test_resnet/jpeg/1"


@pytest.fixture(scope="module")
def measured(small_options: Callable[[Path], dict], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two cells; the second has a test-time defense and another seed than 0."""
    options = small_options(tmp_path_factory.mktemp("measured") / "run")
    run = bench(**{**options, "defenses": "jpeg", "seeds": "0,1", "attacks": "fgsm", "epochs": 8})
    assert run is not None
    return run


@pytest.fixture(scope="module")
def written(measured: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the card of the second cell."""
    return write_card(measured.path, CELL, tmp_path_factory.mktemp("card") / "card").parent


@pytest.fixture
def card(written: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(written, tmp_path / "card"))


def verified(card: Path, small_folder: Path) -> CheckReport:
    return verify_card(CardSource(card, None, None, {"data": str(small_folder)}, "cpu"), Rules())


def test_hubs_read_its_figures(written: Path, measured: Run) -> None:
    known = ModelCard.load(written / CARD_FILE)
    found = {
        (result.metric_args["attack"], result.metric_args["eps"]): result
        for result in known.data.eval_results
    }
    records = measured.records_of(CELL)
    assert len(found) == len(records) == 3
    for record in records.to_dict("records"):
        result = found[record["attack"], record["eps"]]
        assert result.metric_value == pytest.approx(record["top1"], abs=1e-6)
        assert result.metric_args["low"] == pytest.approx(record["top1_low"], abs=1e-6)
        assert result.dataset_args["fingerprint"] == record["measured_on"]
    assert metadata_load(written / CARD_FILE)["pipeline_tag"] == "image-classification"


def test_it_names_no_path_of_the_machine(written: Path, small_folder: Path) -> None:
    for file in (CARD_FILE, CLAIMS_FILE):
        assert str(small_folder) not in (written / file).read_text()


def test_the_printed_command_verifies_it(written: Path, small_folder: Path) -> None:
    """As a person types it: in the directory of the card, with the data's place filled in."""
    text = (written / CARD_FILE).read_text()
    _, _, rest = text.partition("```sh\n")
    command = rest.partition("\n```")[0]
    assert command == read_claims(written / CLAIMS_FILE).command
    words = command.replace("DATA", str(small_folder)).split()
    result = robust_tin(*words[1:], "--device", "cpu", cwd=written)
    assert result.returncode == 0, result.stderr + result.stdout
    assert "Robustness check passed: 3 measurements: 3 not worse." in result.stdout


def test_the_same_weights_give_the_same_results(written: Path, small_folder: Path) -> None:
    report = verified(written, small_folder)
    assert report.exit_code == 0
    assert [result.changes.share for result in report.results if result.changes] == [0, 0, 0]


def test_spoilt_weights_are_refuted(card: Path, small_folder: Path) -> None:
    file = card / WEIGHTS_FILE
    tensors = load_file(file)
    save_file({name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, file)
    report = verified(card, small_folder)
    assert report.exit_code == 1
    assert [finding.code for finding in report.findings] == [FindingCode.other_weights]
    assert report.of(CheckStatus.worse, CheckStatus.untrained)
    result = robust_tin("check", "--card", card, "--data", small_folder, "--device", "cpu")
    assert result.returncode == 1
    assert "the weights differ from the card's" in result.stdout


def test_one_changed_number_is_refuted_though_no_figure_moves(card: Path, small_folder: Path) -> None:
    file = card / WEIGHTS_FILE
    tensors = load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name].view(-1)[0] += 1e-6
    save_file(tensors, file)
    report = verified(card, small_folder)
    assert report.exit_code == 1
    assert [finding.code for finding in report.findings] == [FindingCode.other_weights]


@pytest.mark.parametrize("part", ["metadata", "text"])
def test_a_card_that_says_more_than_its_claims_is_refuted(card: Path, small_folder: Path, part: str) -> None:
    file = card / CARD_FILE
    text = file.read_text()
    claims = read_claims(card / CLAIMS_FILE)
    right = claims.entry.measures[0].right[0] / claims.baseline.images
    before, after = {
        "metadata": (f"value: {round(right, 6)}\n", "value: 0.99\n"),
        "text": (f"| {100 * right:.1f} |", "| 99.0 |"),
    }[part]
    assert before in text
    file.write_text(text.replace(before, after, 1))
    report = verified(card, small_folder)
    assert report.exit_code == 1
    assert [finding.code for finding in report.findings] == [FindingCode.other_text]


def test_claims_that_were_changed_by_hand_are_refused(card: Path, small_folder: Path) -> None:
    file = card / CLAIMS_FILE
    claims = json.loads(file.read_text())
    claims["plan"]["epochs"] = [100]
    file.write_text(json.dumps(claims))
    with pytest.raises(RobustTinError, match="changed by hand"):
        verified(card, small_folder)


def test_other_images_are_refused(written: Path, drawn: Path) -> None:
    with pytest.raises(RobustTinError, match="the card cannot be verified: another data set"):
        verify_card(CardSource(written, None, None, {"data": str(drawn)}, "cpu"), Rules())


def test_missing_things_are_named(card: Path, small_folder: Path) -> None:
    with pytest.raises(RobustTinError, match="give --data DATA"):
        verify_card(CardSource(card, None, None, {}, "cpu"), Rules())
    (card / WEIGHTS_FILE).unlink()
    with pytest.raises(RobustTinError, match="give --weights FILE"):
        verified(card, small_folder)


def test_a_card_is_of_one_cell_and_replaces_no_other_files(measured: Run, tmp_path: Path) -> None:
    with pytest.raises(RobustTinError, match="selects 2 cells"):
        write_card(measured.path, "*", tmp_path / "card")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RobustTinError, match="holds no card"):
        write_card(measured.path, CELL, tmp_path)


def test_a_model_that_was_given_is_verified_where_it_lies(
    written: Path, small_folder: Path, tmp_path: Path
) -> None:
    weights = written / WEIGHTS_FILE
    data = {"data": str(small_folder)}
    options = {"models": ["timm:test_resnet"], "weights": [weights], "attacks": "fgsm", "eps": 0.03}
    run = evaluate_run(**options, **data, device="cpu", out=tmp_path / "run")
    card = write_card(run.path, "*", tmp_path / "card")
    with pytest.raises(RobustTinError, match="give --weights FILE"):
        verify_card(CardSource(card, None, None, data, "cpu"), Rules())
    assert verify_card(CardSource(card, None, weights, data, "cpu"), Rules()).exit_code == 0
    tensors = load_file(weights)
    other = tmp_path / "other.safetensors"
    save_file({name: tensor * 2 for name, tensor in tensors.items()}, other)
    report = verify_card(CardSource(card, None, other, data, "cpu"), Rules())
    assert report.exit_code == 1
    assert [finding.code for finding in report.findings] == [FindingCode.other_weights]
