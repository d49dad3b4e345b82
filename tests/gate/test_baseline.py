"""The baseline file: small, sorted and stable; every error in it is told in one line."""

import hashlib
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import candidate, figure, model, right, table

from robustbench_tin.benchmarks.codes.former_trust_texts import FORMER_TEXTS
from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.gate.baseline import FORMAT_KEY, Baseline, make_baseline
from robustbench_tin.benchmarks.gate.baseline_io import LARGEST, MOST_VALUES, BaselineError, read_baseline
from robustbench_tin.benchmarks.gate.candidate import CandidateModel
from robustbench_tin.benchmarks.gate.user_model import asked_by
from robustbench_tin.benchmarks.runs.records import CLEAN
from robustbench_tin.benchmarks.runs.same_measurement import settings_of
from robustbench_tin.errors import RobustTinError, RunError


@pytest.fixture
def written(tmp_path) -> Path:
    """The file of three seeds."""
    models = [model(table(fgsm=240 + seed), seed=seed, weights=f"w{seed}") for seed in range(3)]
    path = tmp_path / "baseline.json"
    make_baseline([candidate(*models)]).write(path)
    return path


def refused(path: Path) -> str:
    """The error of a file: one short printable line, and exit code 2."""
    with pytest.raises(BaselineError) as caught:
        read_baseline(path)
    message = str(caught.value)
    assert isinstance(caught.value, RobustTinError)
    assert caught.value.exit_code == 2
    assert message.isprintable()
    assert len(message) < 400 + len(str(path))
    return message


def edited(path: Path, change) -> Path:
    """The file after a change of its content."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def test_it_holds_why_a_figure_is_unchecked(tmp_path):
    few = "too few images: 8, and 20 are needed"
    seeds = []
    for seed, trust in enumerate(("ok", f"unchecked: {few}", f"accuracy rises; unchecked: {few}")):
        seeds.append(model({("fgsm", 0.03): right(240)}, seed=seed, weights=f"w{seed}", trust=trust))
    path = tmp_path / "baseline.json"
    made = make_baseline([candidate(*seeds)])
    made.write(path)
    (measure,) = read_baseline(path).entries[0].measures
    found = measure.checked, [*map(str, measure.doubts)], [*map(str, measure.unchecked)]
    assert found == (False, ["accuracy rises"], [few])
    assert asked_by(made).trust
    checked = make_baseline([candidate(*seeds[::2])]).entries[0].measures[0]
    assert checked.checked


def former_text(reason: Reason) -> str:
    """The text that a version of format 1 wrote for a reason."""
    return dict(FORMER_TEXTS).get(reason.code, str(reason)).format_map(reason.facts)


def of_format(number: int, baseline: Baseline, change=lambda measure: measure) -> str:
    """The file as an earlier version would have written it: other names, and in format 1 texts for codes."""
    content = json.loads(baseline.text())
    del content["digest"]
    content[FORMAT_KEY] = number
    for measure in content["entries"][0]["measures"]:
        measure["learned"] = measure.pop("above_chance")
        measure["settings"]["mode"] = "full budget"
        for field in ("doubts", "unchecked") if number == 1 else ():
            measure[field] = [former_text(Reason.model_validate(reason)) for reason in measure[field]]
        if number == 1 and not measure["unchecked"]:
            del measure["unchecked"]
        change(measure)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return json.dumps({**content, "digest": hashlib.blake2b(text.encode(), digest_size=8).hexdigest()})


def test_files_of_earlier_formats_are_read(tmp_path):
    late = (
        "the attack still succeeded on 60 of 400 images in the last tenth of its budget: give it more steps"
    )
    few = "unchecked: too few images: 8, and 20 are needed"
    made = make_baseline([candidate(model({("fgsm", 0.03): right(240)}, trust=f"{late}; {few}"))])
    path = tmp_path / "old.json"
    path.write_text(of_format(1, made))
    assert "still broke 60 of 400 images" in path.read_text()
    (measure,) = read_baseline(path).entries[0].measures
    assert [reason.code for reason in measure.doubts] == [TrustCode.not_converged]
    assert [reason.code for reason in measure.unchecked] == [TrustCode.few_images]
    assert [*map(str, (*measure.doubts, *measure.unchecked))] == [late, few.removeprefix("unchecked: ")]
    # A text of no known version is kept as it is, and a change by hand is detected.
    path.write_text(of_format(1, made, lambda measure: measure["doubts"].append("the moon was full")))
    assert str(read_baseline(path).entries[0].measures[0].doubts[1]) == "the moon was full"
    path.write_text(of_format(1, made).replace("60 of 400", "61 of 400"))
    with pytest.raises(BaselineError, match="changed by hand or merged"):
        read_baseline(path)


def test_a_file_of_format_2_is_the_same_but_for_names(tmp_path):
    made = make_baseline([candidate(model(table()))])
    (tmp_path / "old.json").write_text(of_format(2, made))
    assert read_baseline(tmp_path / "old.json").entries == made.entries


def test_the_keys_of_settings_are_those_of_stored_files():
    """A new wording of a key would make every stored baseline incomparable."""
    assert sorted(settings_of(figure("pgd", 0.01, right(4)).record)) == [
        "counted",
        "mode",
        "oblivious",
        "passes a gradient (eot)",
        "rounded to 8 bits",
    ]


def test_figures_are_blank_if_nobody_asked(tmp_path):
    blank = make_baseline([candidate(model(table(), trust=None))])
    blank.write(tmp_path / "blank.json")
    measures = read_baseline(tmp_path / "blank.json").entries[0].measures
    assert [(measure.checked, measure.unchecked) for measure in measures] == [(False, [])] * 3
    assert not asked_by(blank).trust


def test_it_holds_the_first_seed_by_image_and_the_others_counts(written):
    baseline = read_baseline(written)
    (entry,) = baseline.entries
    assert entry.seeds == [0, 1, 2]
    assert entry.weights == ["w0", "w1", "w2"]
    assert [measure.key.label for measure in entry.measures] == ["clean", "fgsm@0.03", "pgd@0.03"]
    fgsm = entry.measures[1]
    assert fgsm.right == [240, 241, 242]
    np.testing.assert_array_equal(fgsm.hits(400), right(240))


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_outcomes_come_back_bit_by_bit(hits):
    hits = np.array(hits)
    baseline = make_baseline([candidate(model({(CLEAN, 0.0): hits}))])
    np.testing.assert_array_equal(baseline.entries[0].measures[0].hits(len(hits)), hits)


def test_it_is_stable_and_sorted(tmp_path):
    measures = table()
    one = candidate(model(measures, seed=1, weights="b"), model(measures, seed=0, weights="a"), z="1", a="2")
    shuffled = dict(reversed(measures.items()))
    other = candidate(
        model(shuffled, seed=0, weights="a"), model(shuffled, seed=1, weights="b"), a="2", z="1"
    )
    assert make_baseline([one]).text() == make_baseline([other]).text()
    names = [make_baseline([candidate(model(measures, name=n))]).entries[0].label for n in ("a", "b")]
    both = make_baseline([candidate(*(model(measures, name=n) for n in ("b", "a")))])
    assert [entry.label for entry in both.entries] == names


def test_short_lists_stand_on_one_line_whatever_texts_hold(tmp_path):
    odd = 'a [ "b", 1 ] c'
    baseline = make_baseline([candidate(model(table(), defense=odd), note=odd)])
    assert '"right": [340],' in baseline.text()
    baseline.write(tmp_path / "b.json")
    assert read_baseline(tmp_path / "b.json").entries[0].defense == odd


def test_twelve_measures_of_ten_thousand_images_and_ten_seeds_are_small(tmp_path):
    random = np.random.default_rng(0)
    measures = {(f"pgd:steps={n}", 0.01): random.random(10_000) < 0.5 for n in range(12)}
    models = [model(measures, seed=seed, weights=f"{seed:016x}") for seed in range(10)]
    make_baseline([candidate(*models)]).write(tmp_path / "b.json")
    assert (tmp_path / "b.json").stat().st_size < 200_000
    assert len(read_baseline(tmp_path / "b.json").entries[0].measures) == 12


def test_runs_of_other_seeds_are_one_baseline():
    runs = [candidate(model(table(), seed=seed, weights=f"w{seed}")) for seed in (3, 1)]
    (entry,) = make_baseline(runs).entries
    assert entry.seeds == [1, 3]


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([candidate(model(table())), candidate(model(table(), seed=1), epochs="2")], "more than their seeds"),
        ([candidate(model(table())), candidate(model(table()))], "is in two runs"),
        (
            [candidate(model(table()), model({(CLEAN, 0.0): right(1)}, seed=1))],
            "seed 1, fgsm@0.03 is not measured",
        ),
        (
            [
                candidate(
                    CandidateModel(
                        "net", "none", 0, "w", (figure("pgd", 0.03, right(3), status="failed: nan"),)
                    )
                )
            ],
            "pgd@0.03 failed: nan",
        ),
        (
            [candidate(model(table()), model(table(), seed=1, eot=5))],
            "measured with different settings or images",
        ),
    ],
)
def test_what_is_no_baseline_is_refused(candidates, message):
    with pytest.raises(RunError, match=re.escape(message)):
        make_baseline(candidates)


def test_a_reformatted_file_is_the_same(written):
    baseline = read_baseline(written)
    written.write_text(json.dumps(json.loads(written.read_text()), indent=7, sort_keys=True))
    assert read_baseline(written) == baseline


def test_a_missing_file(tmp_path):
    assert "robust-tin baseline RUN --out" in refused(tmp_path / "none.json")
    assert "it is a directory, not a regular file" in refused(tmp_path)


def test_every_truncation_is_told(written):
    content = written.read_bytes()
    for end in range(0, len(content) - 2, 37):
        written.write_bytes(content[:end])
        assert re.search("empty|not JSON", refused(written)), end


def change_count(content):
    content["entries"][0]["measures"][1]["right"][1] -= 9


def change_first_count(content):
    content["entries"][0]["measures"][1]["right"][0] -= 9


def change_bits(content):
    content["entries"][0]["measures"][1]["outcomes"] = content["entries"][0]["measures"][2]["outcomes"]


def change_version(content):
    content[FORMAT_KEY] = 99


def forget_version(content):
    del content[FORMAT_KEY]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_count, "changed by hand or merged"),
        (change_first_count, "do not have 231 right images"),
        (change_bits, "do not have 240 right images"),
        (change_version, "has format 99, and this robust-tin reads format 3; update robust-tin"),
        (forget_version, "is not a baseline"),
        (lambda content: content.update(images=401), "do not have 240|are not 401 bits"),
        (lambda content: content.update(images=10**9), "images: "),
        (lambda content: content.update(images=-1), "images: "),
        (lambda content: content.update(images="400"), "images: "),
        (lambda content: content.update(images=400.0), "images: "),
        (lambda content: content.update(images=True), "images: "),
        (lambda content: content.update(extra=1), "extra: "),
        (lambda content: content.update({"\x1b[31m\n::error::": 1}), "changed by hand"),
        (lambda content: content.update(versions="x\n::warning::y"), "versions: "),
        (lambda content: content.update(versions="\u202egnp.exe"), "versions: "),
        (lambda content: content.update(versions="v" * 5000), "versions: "),
        (lambda content: content.update(entries=[]), "entries: "),
        (lambda content: content.update(entries=content["entries"] * 2), "appear twice"),
        (lambda content: content["entries"][0].update(seeds=[0, 0, 1]), "different seeds"),
        (lambda content: content["entries"][0].update(weights=[]), "weights digest"),
        (lambda content: content["entries"][0]["measures"][0].update(eps=-1.0), "eps: "),
        (
            lambda content: content["entries"][0]["measures"][0].update(right=[340]),
            "right images for each seed",
        ),
        (
            lambda content: content["entries"][0]["measures"][0].update(right=[340, 1, 10**7]),
            "more right images",
        ),
        (lambda content: content["entries"][0]["measures"][0].update(outcomes="!"), "not base64"),
        (
            lambda content: content["entries"][0]["measures"].append(content["entries"][0]["measures"][0]),
            "twice",
        ),
    ],
)
def test_a_file_changed_by_hand_is_told(written, change, message):
    assert re.search(message, refused(edited(written, change)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"   \n",
        b"null",
        b"[]",
        b"42",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"1" * 10_000,
        b'{"robust-tin-baseline": ' + b"9" * 6_000 + b"}",
        b'{"robust-tin-baseline": 1e999}',
        b'{"robust-tin-baseline": NaN}',
        b'{"robust-tin-baseline": true}',
        b"<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> other\n",
        b'{"robust-tin-baseline": 1, "robust-tin-baseline": 1}',
    ],
)
def test_a_hostile_file_is_told(tmp_path, content):
    path = tmp_path / "baseline.json"
    path.write_bytes(content)
    refused(path)


def test_a_number_that_is_none(written):
    for bad in ("NaN", "Infinity", "1e400", "-0.5"):
        text = re.sub(r'"eps": 0\.03', f'"eps": {bad}', written.read_text(), count=1)
        other = written.with_name("other.json")
        other.write_text(text)
        assert "robust-tin baseline" in refused(other)


def test_a_huge_file_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "baseline.json"
    with path.open("wb") as file:
        file.truncate(LARGEST * 100)  # sparse: takes no room
    assert "cannot be read: larger than" in refused(path)


def test_a_file_of_nothing_but_values_is_not_checked_one_by_one(tmp_path):
    path = tmp_path / "baseline.json"
    for many in (b"0," * MOST_VALUES, b"{}," * (MOST_VALUES // 2)):
        path.write_bytes(b'{"robust-tin-baseline": 1, "entries": [' + many + b"0]}")
        assert "holds more than 400,000 values" in refused(path)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(anything)
def test_any_json_is_told(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content))
    refused(path)


@given(st.data())
def test_any_part_replaced_by_anything_is_told_or_is_the_same(tmp_path_factory, data):
    """Walk to some place of a good file and put something else there."""
    baseline = make_baseline([candidate(model(table()), model(table(), seed=1, weights="w1"))])
    content = json.loads(baseline.text())
    place, key = content, data.draw(st.sampled_from(sorted(content)))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    place[key] = data.draw(anything)
    path = tmp_path_factory.getbasetemp() / "changed.json"
    path.write_text(json.dumps(content))
    if json.dumps(content) != json.dumps(json.loads(baseline.text())):
        refused(path)


def test_flipped_bytes_are_told(written):
    """One byte of the file replaced, in 300 places: told, or the same content."""
    good, content = read_baseline(written), written.read_bytes()
    chooser = random.Random(0)
    told = 0
    for _ in range(300):
        place = chooser.randrange(len(content))
        written.write_bytes(content[:place] + bytes([chooser.randrange(256)]) + content[place + 1 :])
        try:
            read = read_baseline(written)
        except BaselineError:
            told += 1
            refused(written)
        else:
            assert read == good
    assert told > 200
