"""The CI files that ``robust-tin init`` writes: a GitHub workflow or a GitLab pipeline with one check."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from robustbench_tin.errors import InvalidSettingError

CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
"""Package index with PyTorch for the CPU; the default build includes 6 GB of CUDA."""
GITHUB_WORKFLOW = Path(".github/workflows/robustness.yml")
GITLAB_PIPELINE = Path(".gitlab-ci.yml")
GITLAB_INCLUDED = Path(".gitlab/robustness.gitlab-ci.yml")
_WRITTEN = "# Written by robust-tin init."


class CiService(StrEnum):
    """The CI services that can run the check."""

    github = "github"
    gitlab = "gitlab"
    none = "none"


def ci_file(service: CiService) -> Path | None:
    """The path of a service's CI file, relative to the project; None for :attr:`CiService.none`.

    The project's own ``.gitlab-ci.yml`` is never changed. Instead, another file is written, which it must
    include.
    """
    if service is CiService.none:
        return None
    if service is CiService.github:
        return GITHUB_WORKFLOW
    there = GITLAB_PIPELINE
    if there.exists() and not there.read_text(encoding="utf-8", errors="replace").startswith(_WRITTEN):
        return GITLAB_INCLUDED
    return there


def workflow(service: CiService, check: str, project: Sequence[str], place: Path) -> str:
    """The text of a CI file that installs robust-tin for the CPU, with a cache, and runs a check.

    Args:
        service: ``github`` or ``gitlab``.
        check: a ``robust-tin check`` command line.
        project: additional arguments of ``pip install``, such as ``.`` or ``-r requirements.txt``.
        place: path of the CI file; GitHub's cache is renewed if its content changes.

    Raises:
        InvalidSettingError: if the command has line breaks or GitHub expressions, which change its meaning.
    """
    if "${{" in check or not check.isprintable():
        raise InvalidSettingError(
            f"the command '{check}' is not safe in a CI file; expected names without line breaks and without"
            " '${{'"
        )
    installed = " ".join(['"$ROBUST_TIN_INSTALL"', *map(shlex.quote, project)])
    template = _GITHUB if service is CiService.github else _GITLAB
    texts = {
        "@INSTALLED@": installed,
        "@CHECK@": check,
        "@PLACE@": place.as_posix(),
        "@INDEX@": CPU_WHEELS,
        "@PACKAGE@": _package_for(check),
    }
    for mark, text in texts.items():
        template = template.replace(mark, text)
    return template


def _package_for(check: str) -> str:
    """The package with the extras that a check needs: for ONNX files and for data sets of Hugging Face."""
    words = shlex.split(check)
    needed = {
        "hf": any(word.startswith("hf:") for word in words),
        "onnx": any(word.lower().endswith(".onnx") for word in words),
    }
    extras = ",".join(extra for extra, is_needed in needed.items() if is_needed)
    return f"robustbench-tin[{extras}]" if extras else "robustbench-tin"


_GITHUB = """\
# Written by robust-tin init. The model, its weights and the images must be in the repository, or be
# downloaded before the check.
name: robustness

on:
  pull_request:
  push:
    branches: [main]

permissions:
  contents: read

jobs:
  check:
    runs-on: ubuntu-latest
    timeout-minutes: 30
    env:
      # PyTorch for the CPU; make it empty for the build with CUDA, which needs 6 GB.
      PIP_EXTRA_INDEX_URL: @INDEX@
      ROBUST_TIN_INSTALL: @PACKAGE@
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
          cache: pip
          cache-dependency-path: @PLACE@
      - name: Install robust-tin
        run: python -m pip install @INSTALLED@
      - name: Check robustness
        run: |
          @CHECK@ --github --junit robustness.xml
      - name: Keep the report
        if: always()
        uses: actions/upload-artifact@v4
        with:
          name: robustness
          path: robustness.xml
"""

_GITLAB = """\
# Written by robust-tin init. The model, its weights and the images must be in the repository, or be
# downloaded before the check.
robustness:
  image: python:3.12
  variables:
    # PyTorch for the CPU; make it empty for the build with CUDA, which needs 6 GB.
    PIP_EXTRA_INDEX_URL: @INDEX@
    PIP_CACHE_DIR: $CI_PROJECT_DIR/.cache/pip
    ROBUST_TIN_INSTALL: @PACKAGE@
  cache:
    key: robust-tin-pip
    paths: [.cache/pip]
  before_script:
    - |
      python -m pip install --quiet @INSTALLED@
  script:
    - |
      @CHECK@ --junit robustness.xml --markdown robustness.md
  artifacts:
    when: always
    paths: [robustness.md]
    reports:
      junit: robustness.xml
"""
