"""Float32 stays float32 under either of torch's two interfaces, and their settings come back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from robustbench_tin.strict_float32 import exact_float32

# A child each, since torch cannot be brought back from a mix of both interfaces.
PROGRAM = """
import os, sys, torch
from robustbench_tin.strict_float32 import exact_float32, tf32

SETTINGS = {
    "defaults": "pass",
    "older, high": "torch.set_float32_matmul_precision('high')",
    "older, medium": "torch.set_float32_matmul_precision('medium')",
    "older, by flag": "torch.backends.cuda.matmul.allow_tf32 = True",
    "older, cudnn": "torch.backends.cudnn.allow_tf32 = False",
    "newer, everywhere": "torch.backends.fp32_precision = 'tf32'",
    "newer, by place": "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
}
PLACES = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul
READERS = [
    torch.get_float32_matmul_precision,
    lambda: torch.backends.cuda.matmul.allow_tf32,
    lambda: torch.backends.cudnn.allow_tf32,
    *(lambda place=place: place.fp32_precision for place in PLACES),
]

def read(reader):
    try:
        return reader()
    except RuntimeError:
        return "refused"

def check(setting):
    exec(setting)
    before = [read(reader) for reader in READERS]
    def assert_exact():
        assert torch.get_float32_matmul_precision() == "highest"
        assert torch.backends.cuda.matmul.allow_tf32 is False
        assert all(place.fp32_precision in ("none", "ieee") for place in PLACES)

    with exact_float32():
        assert_exact()
        with tf32():
            assert torch.get_float32_matmul_precision() == "high"
            assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
            assert [place.fp32_precision for place in PLACES[:2]] == ["tf32"] * 2
        assert_exact()
    assert [read(reader) for reader in READERS] == before, before

for name, setting in SETTINGS.items():
    child = os.fork()
    if child == 0:
        try:
            check(setting)
        except BaseException as error:
            print(f"{name}: {error!r}", flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit(1)
print("checked", len(SETTINGS))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch before 2.9 has one interface"
)
def test_all_settings_come_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout == "checked 7\n", done.stdout + done.stderr


def test_they_come_back_after_an_error() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with pytest.raises(KeyError), exact_float32():
        raise KeyError
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
