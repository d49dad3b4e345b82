"""The CI files that ``robust-tin init`` writes: a GitHub workflow or a GitLab pipeline with one check."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from robustbench_tin.errors import InvalidSettingError

CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
"""Where pip finds PyTorch for the CPU: the default build brings 6 GB of CUDA."""
GITHUB_WORKFLOW = Path(".github/workflows/robustness.yml")
GITLAB_PIPELINE = Path(".gitlab-ci.yml")
GITLAB_INCLUDED = Path(".gitlab/robustness.gitlab-ci.yml")
_WRITTEN = "# Written by robust-tin init."


class CiService(StrEnum):
    """Who runs the check."""

    github = "github"
    gitlab = "gitlab"
    none = "none"


def ci_file(service: CiService) -> Path | None:
    """Where a service looks for the file; None if none is asked for.

    A ``.gitlab-ci.yml`` of the project's own is never touched: it has to include the file.
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
        project: more that pip installs: ``.`` or ``-r requirements.txt``.
        place: of the file; its content is the key of GitHub's cache.

    Raises:
        InvalidSettingError: if the command would mean something else there.
    """
    if "${{" in check or not check.isprintable():
        raise InvalidSettingError(
            f"the command '{check}' cannot stand in a CI file; expected names without line breaks and without"
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
# Written by robust-tin init. The model, its weights and the images must lie in the repository, or be fetched
# before the check.
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
      # PyTorch for the CPU; leave it empty for the build with CUDA, which takes 6 GB.
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
# Written by robust-tin init. The model, its weights and the images must lie in the repository, or be fetched
# before the check.
robustness:
  image: python:3.12
  variables:
    # PyTorch for the CPU; leave it empty for the build with CUDA, which takes 6 GB.
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
