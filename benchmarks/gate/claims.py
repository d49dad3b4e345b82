"""Claims: the figures of a model card in a file, so that a check can verify them from the weights."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from robustbench_tin import files
from robustbench_tin.benchmarks.gate.baseline import Baseline, Entry, make_baseline
from robustbench_tin.benchmarks.gate.baseline_io import BaselineError
from robustbench_tin.benchmarks.gate.candidate import candidate_of
from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.remembered import data_options
from robustbench_tin.benchmarks.runs.training_files import Trained
from robustbench_tin.errors import RunError

CLAIMS_FILE = "robust-tin-claims.json"
WEIGHTS_FILE = "weights.safetensors"
FORMAT_KEY = "robust-tin-claims"
PLACE = "DATA"
"""Placeholder for the path of the data set, which differs between machines."""
_LARGEST = 64 * 2**20


class Claims(BaseModel):
    """The content of a claims file.

    Attributes:
        format: number of the file format.
        digest: digest of all other content; after a change by hand it no longer fits.
        plan: plan of a run with this cell only.
        trained: record of the training.
        data: data options that select the measured images; an absolute path is replaced by :data:`PLACE`.
        baseline: the figures, with the results per image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Annotated[Literal[1], Field(alias=FORMAT_KEY)]
    digest: str = ""
    plan: Plan
    trained: Trained
    data: dict[str, int | str | bool | list[str] | None]
    baseline: Baseline

    @property
    def cell(self) -> Cell:
        """The cell of the claimed model."""
        (cell,) = self.plan.cells()
        return cell

    @property
    def entry(self) -> Entry:
        """The figures of the model."""
        return self.baseline.entries[0]

    @property
    def weights(self) -> str | None:
        """Digest of the model's weights; None if the model does not expose its weights."""
        return self.entry.weights[0]

    @property
    def needs_place(self) -> bool:
        """Whether a check needs the path of the data set."""
        return PLACE in str(self.data["data"])

    @property
    def command(self) -> str:
        """The command that verifies the claims in the directory of the card."""
        place = f" --data {shlex.quote(str(self.data['data']))}" if self.needs_place else ""
        given = self.plan.given_model(self.cell.model)
        model = "" if given is None else f" --model {shlex.quote(given.spec)}"
        weights = " --weights FILE" if given is not None and given.weights_file else ""
        return f"robust-tin check --card README.md{model}{weights}{place}"

    @property
    def content_digest(self) -> str:
        """The digest of the content, which :attr:`digest` must equal."""
        content = self.model_dump(mode="json", by_alias=True, exclude={"digest"})
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def text(self) -> str:
        """The content of the file."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


def make_claims(run: Run, cell: Cell) -> Claims:
    """Make the claims of a cell of a run.

    Args:
        run: the run.
        cell: one of its cells.

    Raises:
        RunError: if a measurement is missing or failed, or if the weights are not available.
    """
    plan = plan_of_cell(run.plan, cell)
    candidate = candidate_of(run, [cell], plan)
    trained = run.trained(cell)
    if trained is None or candidate.models[0].weights is None:
        raise RunError(
            f"the weights of {cell.label} are not available, so its card could not be verified; train the"
            " cell again, or choose a model that exposes its weights"
        )
    claims = Claims.model_validate(
        {
            FORMAT_KEY: 1,
            "plan": plan,
            "trained": trained,
            "data": _without_paths(data_options(run.path, {})),
            "baseline": make_baseline([candidate]),
        }
    )
    return claims.model_copy(update={"digest": claims.content_digest})


def read_claims(path: Path) -> Claims:
    """Read and validate a claims file.

    Args:
        path: path of the file.

    Raises:
        RobustTinError: if the file is missing, damaged or changed by hand.
    """
    try:
        claims = Claims.model_validate_json(files.read_bytes(path, _LARGEST))
    except OSError as error:
        raise RunError(
            f"cannot read the claims '{path}': {error.strerror}; expected the file beside the card"
        ) from error
    except (ValidationError, RecursionError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "nested too deeply"
        raise BaselineError(
            f"claims '{path}' are damaged or of another version ({first[:200]}); write the card again with"
            " robust-tin card"
        ) from None
    if claims.digest != claims.content_digest:
        raise BaselineError(
            f"claims '{path}' were changed by hand: the digest does not fit the content; write the card again"
            " with robust-tin card"
        )
    return claims


def plan_of_cell(plan: Plan, cell: Cell) -> Plan:
    """The plan of a run that measures a single, trained cell with the settings of another plan."""
    changed = {
        "models": (cell.model,),
        "defenses": (cell.defense,),
        "seeds": (cell.seed,),
        "sources": (),
        "source_files": (),
        "epochs": (plan.epochs_of(cell.model),),
        "sizes": (plan.size_of(cell.model),) if plan.sizes else (),
        "certified": tuple(spec for spec in plan.certified if spec == cell.defense),
        "given": tuple(model for model in plan.given if model.name == cell.model),
    }
    return Plan.model_validate({**plan.model_dump(), **changed})


def _without_paths(options: dict[str, Any]) -> dict[str, Any]:
    kind, colon, place = str(options.get("data", PLACE)).partition(":")
    path, comma, settings = place.partition(",")
    if not colon:
        return {**options, "data": PLACE if Path(kind).is_absolute() else kind}
    return {**options, "data": f"{kind}:{PLACE if Path(path).is_absolute() else path}{comma}{settings}"}
