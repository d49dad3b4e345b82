"""Claims: what a model card says of a trained model, in a file that a check can verify from the weights."""

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
"""Stands for the path of the data set, which nobody else has in the same place."""
_LARGEST = 64 * 2**20


class Claims(BaseModel):
    """What a claims file holds.

    Attributes:
        format: of the file.
        digest: of everything else in it; a change by hand breaks it.
        plan: of a run of this cell alone.
        trained: what is known of the training.
        data: data options that find the measured images; a path in them is :data:`PLACE`.
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
        """The model that they are about."""
        (cell,) = self.plan.cells()
        return cell

    @property
    def entry(self) -> Entry:
        """Its figures."""
        return self.baseline.entries[0]

    @property
    def weights(self) -> str | None:
        """Digest of its tensors; None if the model shows none."""
        return self.entry.weights[0]

    @property
    def needs_place(self) -> bool:
        """Whether a check must be told where the data set lies."""
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
        """What :attr:`digest` must be."""
        content = self.model_dump(mode="json", by_alias=True, exclude={"digest"})
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def text(self) -> str:
        """The content of the file."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


def make_claims(run: Run, cell: Cell) -> Claims:
    """The claims of a cell of a run.

    Raises:
        RunError: if a measurement is missing or failed, or if the weights are not at hand.
    """
    plan = plan_of_cell(run.plan, cell)
    candidate = candidate_of(run, [cell], plan)
    trained = run.trained(cell)
    if trained is None or candidate.models[0].weights is None:
        raise RunError(
            f"the weights of {cell.label} are not at hand, so nobody could verify a card of it; train the"
            " cell again, or take a model that shows its weights"
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
    """Read and check a claims file.

    Raises:
        RunError: if it is missing, damaged or changed by hand.
    """
    try:
        claims = Claims.model_validate_json(files.read_bytes(path, _LARGEST))
    except OSError as error:
        raise RunError(f"cannot read the claims '{path}': {error.strerror}") from error
    except (ValidationError, RecursionError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "nested too deeply"
        raise BaselineError(f"claims '{path}' are damaged or of another version ({first[:200]})") from None
    if claims.digest != claims.content_digest:
        raise BaselineError(f"claims '{path}' were changed by hand: the digest is not that of the content")
    return claims


def plan_of_cell(plan: Plan, cell: Cell) -> Plan:
    """The plan of a run that measures one cell, already trained, as this plan does."""
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
