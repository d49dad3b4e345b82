from __future__ import annotations

import hashlib
import pickle
import tarfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cifar_files import SETS, draw_cifar
from torchvision.datasets import CIFAR10

from robustbench_tin.data import open_dataset
from robustbench_tin.errors import DataError


@pytest.fixture
def draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes a small set in torchvision's files; returns the root."""
    return lambda name: draw_cifar(tmp_path / "root", name, monkeypatch)


def packed(root: Path, name: str) -> Path:
    listed, _ = SETS[name]
    archive = root / listed.filename
    with tarfile.open(archive, "w:gz") as file:
        file.add(root / listed.base_folder, listed.base_folder)
    return archive


@pytest.mark.parametrize("name", SETS)
def test_it_is_read_as_torchvision_reads_it(draw: Any, name: str, cache: Path) -> None:
    root = draw(name)
    dataset = open_dataset(f"{name}:root={root}", cache_dir=cache)
    assert dataset.name == name
    assert dataset.classes == ("ship", "truck", "cat", "dog")
    for train, split in ((True, dataset.train), (False, dataset.val)):
        expected = SETS[name][0](root, train=train)
        np.testing.assert_array_equal(split.images, expected.data.transpose(0, 3, 1, 2))
        assert split.labels.tolist() == expected.targets
    assert dataset.val.ids is not None
    assert dataset.val.ids[0] in {"test_batch_0.png", "test_0.png"}


def test_the_archive_the_folder_and_the_path_alone_are_the_same(draw: Any, cache: Path) -> None:
    root = draw("cifar10")
    archive = packed(root, "cifar10")
    places = [f"root={root}", str(root), str(root / "cifar-10-batches-py"), str(archive)]
    prints = {open_dataset(f"cifar10:{place}", cache_dir=cache).fingerprint for place in places}
    (root / "cifar-10-batches-py").rename(root / "elsewhere")
    prints.add(open_dataset(f"cifar10:root={root}", cache_dir=cache).fingerprint)
    assert len(prints) == 1


def test_the_second_opening_reads_no_pickle(draw: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = draw("cifar10")
    first = open_dataset(f"cifar10:root={root}", cache_dir=cache)
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", "0" * 32]])
    second = open_dataset(f"cifar10:root={root}", cache_dir=cache)
    assert isinstance(second.train.images, np.memmap)
    np.testing.assert_array_equal(second.train.images, first.train.images)


def test_another_md5_is_refused(draw: Any, cache: Path) -> None:
    root = draw("cifar10")
    file = root / "cifar-10-batches-py/data_batch_3"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(DataError, match=r"data_batch_3' has the MD5 \w{32}; expected \w{32}, the published"):
        open_dataset(f"cifar10:root={root}", cache_dir=cache)


class Spy:
    """Whose pickle writes a file when it is loaded by the ordinary unpickler."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_no_code_in_a_pickle_is_run(
    draw: Any, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = draw("cifar10")
    content = pickle.dumps({"data": Spy(tmp_path / "touched")}, protocol=2)
    (root / "cifar-10-batches-py/test_batch").write_bytes(content)
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", hashlib.md5(content).hexdigest()]])
    with pytest.raises(
        DataError, match=r"test_batch' cannot be read .*expected arrays, lists and texts only"
    ):
        open_dataset(f"cifar10:root={root}", cache_dir=cache)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("place", ["root={}", "{}"])
def test_a_directory_without_it_says_what_belongs_there(tmp_path: Path, cache: Path, place: str) -> None:
    with pytest.raises(
        DataError, match=r"expected cifar-10-batches-py/ \(data_batch_1, .* or cifar-10-python"
    ):
        open_dataset(f"cifar10:{place.format(tmp_path)}", cache_dir=cache)


def test_a_missing_file_is_named(draw: Any, cache: Path) -> None:
    root = draw("cifar100")
    packed(root, "cifar100")
    (root / "cifar-100-python/test").unlink()
    with pytest.raises(DataError, match=r"cifar-100-python/test' cannot be read: No such file"):
        open_dataset(f"cifar100:root={root}", cache_dir=cache)


class Silent(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_args: Any) -> None:
        pass


def test_without_a_network_one_line_says_what_to_put_where(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as closed:
        address = f"http://127.0.0.1:{closed.server_port}/cifar-10-python.tar.gz"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(CIFAR10, "url", address)
    with pytest.raises(DataError, match="no connection to the server") as caught:
        open_dataset("cifar10", cache_dir=cache)
    assert address in str(caught.value)
    assert "put cifar-10-python.tar.gz, or its cifar-10-batches-py/" in str(caught.value)
    assert "cifar10:root=DIR" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_downloaded_archive_is_used(draw: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = draw("cifar10")
    expected = open_dataset(f"cifar10:root={root}", cache_dir=cache).fingerprint
    (cache / "downloads").mkdir(parents=True)
    packed(root, "cifar10").rename(cache / "downloads/cifar-10-python.tar.gz")
    assert open_dataset("cifar10", cache_dir=cache).fingerprint == expected
