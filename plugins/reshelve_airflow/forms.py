"""The forms of the DAGs that a person may trigger by hand: each is written once, from the ranges of the ranker file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, Field, create_model, field_validator

from reshelve.config.bases import listed, read_bases
from reshelve.config.ranker import Data, Ranker, Training
from reshelve.config.tuning import Tuning
from reshelve.config.waves import width
from reshelve.errors import ConfigurationError
from reshelve_airflow.params import Params

if TYPE_CHECKING:
    from airflow.sdk import Context

_LIMITS = ("ge", "gt", "le", "lt", "min_length", "max_length")

Day = Annotated[
    date | None,
    Field(
        description="The day to process. Empty: the run's partition key, or else the day before its logical date."
    ),
]


def _as_in_file(section: type[BaseModel], key: str) -> dict[str, Any]:
    """The bounds of a key of the ranker file: a trigger takes what the file takes, no less and no more."""
    return {
        name: getattr(bound, name)
        for bound in section.model_fields[key].metadata
        for name in _LIMITS
        if getattr(bound, name, None) is not None
    }


def _a_listed_base(name: str) -> str:
    """The list as it is now: whoever starts a night by a form or the API may name nothing else."""
    try:
        listed(name)
    except ConfigurationError as error:
        raise ValueError(f"{error.headline}; {error.detail}") from error
    return name


class ClickstreamParams(Params):
    """`clickstream`; see `clickstream_params`."""

    partition: Day = None
    source: str | None = Field(None, description="Only this source. Empty: all sources.")
    land: bool = Field(
        False,
        description="Also land the day for sources whose mapping has no {date} in `files`; sources with a {date} "
        "are always landed.",
    )


class RetrainParams(Params):
    """`retrain_<ranker>`: what is empty keeps the ranker file's value."""

    renamed: ClassVar = {"search_minutes": "tuning_minutes", "search_cost": "tuning_cost"}

    partition: Day = None
    plan: bool = Field(
        False,
        description="Only show what the run would do: stages, reused stages, time and cost. Nothing is written.",
    )
    release: bool = Field(
        True,
        description="Release the version if the gate promotes it and the ranker file allows it; off: publish only. "
        "Backfills never release.",
    )
    note: str | None = Field(
        None, max_length=500, description="The reason for this run; it becomes the release's reason."
    )
    window_days: int | None = Field(
        None,
        **_as_in_file(Data, "window_days"),
        description="Calendar days of partitions to train on, the newest included.",
    )
    epochs: float | None = Field(
        None, **_as_in_file(Training, "epochs"), description="Passes over the training examples."
    )
    max_minutes: float | None = Field(
        None,
        **_as_in_file(Training, "max_minutes"),
        description="Training stops after this many minutes with the weights it has.",
    )
    trials: int | None = Field(
        None,
        **_as_in_file(Tuning, "trials"),
        description="Number of tuning trials; 0: no tuning.",
    )
    tuning_minutes: float | None = Field(
        None, **_as_in_file(Tuning, "max_minutes"), description="Tuning stops after this many minutes."
    )
    tuning_cost: float | None = Field(
        None,
        **_as_in_file(Tuning, "max_cost"),
        description="Tuning stops when its trials have cost this much.",
    )
    base: Annotated[str, AfterValidator(_a_listed_base)] | None = Field(
        None, description="Pretrained model to start from, one of include/bases.yaml."
    )
    compression: Literal["unchanged", "int8", "bf16", "none"] = Field(
        "unchanged",
        description="One step instead of the ranker file's; it is kept only if it is measurably faster and as accurate.",
    )

    def changes(self, *, rounds: int, tuning: Tuning) -> dict[str, Any]:
        """Dotted path → value for every ranker key that is not the file's; the same for each stage of the run.

        The DAG has a fixed number of `rounds`, enough for the ranker file's `tuning`; more trials than those hold make
        each round wider.
        """
        steps = {"unchanged": None, "none": []}.get(self.compression, [self.compression])
        found: dict[str, Any] = {
            "data.window_days": self.window_days,
            "training.epochs": self.epochs,
            "training.max_minutes": self.max_minutes,
            "tuning.trials": self.trials,
            "tuning.max_minutes": self.tuning_minutes,
            "tuning.max_cost": self.tuning_cost,
            "model.base": None if self.base is None else listed(self.base).source,
            "compression.steps": steps,
        }
        if self.trials is not None:
            parallel = width(tuning.model_copy(update={"trials": self.trials}), rounds)
            found["tuning.parallel"] = parallel if parallel > tuning.parallel else None
        return {path: value for path, value in found.items() if value is not None}

    def values(self, *, rounds: int, tuning: Tuning) -> list[str]:
        """The same as `path=value`, as verbs take it; `base` is an option of theirs, and checked again there."""
        changes = self.changes(rounds=rounds, tuning=tuning)
        changes.pop("model.base", None)
        return [
            f"{path}={json.dumps(value) if isinstance(value, list) else value}"
            for path, value in changes.items()
        ]


def retrain_params(ranker: Ranker) -> type[RetrainParams]:
    """The form of one ranker's night: what its file says today is in the texts, what it cannot do is refused."""
    tuning = ranker.tuning
    least = ranker.data.holdout_partitions + ranker.data.validation_partitions + 1
    bounds: dict[str, dict[str, Any]] = {"window_days": {"ge": max(2, least)}}
    if not tuning.space:
        bounds["trials"] = {"le": 0}
    bounds["base"] = {"json_schema_extra": {"enum": [None, *_bases()]}}
    if not tuning.price_per_hour:  # refused by Airflow too, before there is a run
        bounds["tuning_cost"] = {"json_schema_extra": {"allOf": [{"type": "null"}]}}
    fields: dict[str, Any] = {}
    for name, text in _texts(ranker).items():
        field = RetrainParams.model_fields[name]
        limits = {
            key: getattr(limit, key) for limit in field.metadata for key in _LIMITS if hasattr(limit, key)
        }
        fields[name] = (
            field.annotation,
            Field(
                field.default, description=f"{field.description} {text}", **{**limits, **bounds.get(name, {})}
            ),
        )

    def payable(value: float | None) -> float | None:
        if value is not None and not tuning.price_per_hour:
            raise ValueError("the ranker file has no tuning.price_per_hour, so the cost is unknown")
        return value

    validators: dict[str, Any] = {"payable": field_validator("tuning_cost")(payable)}
    return create_model("RetrainParams", __base__=RetrainParams, __validators__=validators, **fields)


def _bases() -> list[str]:
    """What the form offers: nothing while the list is wrong, of which `dags/ranker_files.py` tells."""
    try:
        return sorted(read_bases())
    except ConfigurationError:
        return []


def _texts(ranker: Ranker) -> dict[str, str]:
    """What each param's text says of this ranker, with the ranker file's key that it replaces."""
    tuning = ranker.tuning
    price = f"An hour of one trial costs {tuning.price_per_hour:g}." if tuning.price_per_hour else ""
    nothing = "This ranker file has no tuning.space, so there is nothing to tune."
    bound = (
        "no bound" if tuning.max_cost is None else f"the ranker file's tuning.max_cost, {tuning.max_cost:g}"
    )
    return {
        "window_days": f"Empty: the ranker file's data.window_days, {ranker.data.window_days}.",
        "epochs": f"Empty: the ranker file's training.epochs, {ranker.training.epochs:g}.",
        "max_minutes": f"Empty: the ranker file's training.max_minutes, {ranker.training.max_minutes:g}.",
        "trials": f"Empty: the ranker file's tuning.trials, {tuning.trials}." if tuning.space else nothing,
        "tuning_minutes": f"Empty: the ranker file's tuning.max_minutes, {tuning.max_minutes:g}.",
        "tuning_cost": f"{price} Empty: {bound}."
        if price
        else "Refused until the ranker file has tuning.price_per_hour.",
        "base": f"Empty: the ranker file's model.base, {ranker.model.base}.",
        "compression": f"unchanged: the ranker file's compression.steps, {ranker.compression.said}.",
    }


IfSequence = Annotated[
    int | None,
    Field(
        ge=0,
        description="Only if this is still the newest move of the pointer; the Releases page fills it in. Empty: "
        "no check.",
    ),
]


class ReleaseParams(Params):
    """`release_<ranker>`."""

    version: int = Field(ge=1, description="The published version, for example 20110830001.")
    reason: str = Field("", max_length=500, description="The reason; recorded in the deployment log.")
    allow_older: bool = Field(
        False, description="Allow a version of an older partition to replace a newer one."
    )
    allow_held: bool = Field(
        False, description="Release a version that the gate held. Only a person should decide this."
    )
    if_sequence: IfSequence = None
    run: str | None = Field(
        None,
        max_length=100,
        description="The id of the night whose pinned ranker file sets the release rules; the night fills it in. "
        "Empty: the current file.",
    )
    requested_by: str | None = Field(
        None,
        max_length=200,
        description="Who requested the version whose release had to wait; the watch fills it in. Whoever starts the "
        "run by hand has requested it.",
    )


def _one_of(names: Sequence[str], what: str) -> AfterValidator:
    def known(name: str) -> str:
        if name not in names:
            raise ValueError(f"no such {what}; known: {', '.join(names)}")
        return name

    return AfterValidator(known)


def clickstream_params(sources: Sequence[str]) -> type[ClickstreamParams]:
    """The form of `clickstream`: its sources are those that have a mapping file."""

    class SourceParams(ClickstreamParams):
        """`clickstream`."""

        source: Annotated[str, _one_of(sources, "source")] | None = Field(
            None,
            description="Only this source. Empty: all sources.",
            json_schema_extra={"enum": [None, *sources]},
        )

    return SourceParams


class DecisionParams(Params):
    """`approve_<ranker>`, `withdraw_<ranker>`: a person's word on a release under way."""

    version: int = Field(ge=1, description="The version being released; any other is not touched.")
    reason: str = Field("", max_length=500, description="The reason; recorded in the deployment log.")
    if_sequence: IfSequence = None


class RollbackParams(Params):
    """`rollback_<ranker>`."""

    to: int | None = Field(None, ge=1, description="The version to roll back to. Empty: the previous one.")
    reason: str = Field("", max_length=500, description="The reason; recorded in the deployment log.")
    if_sequence: IfSequence = None
    dry_run: bool = Field(True, description="Only show what would happen. Switch it off to roll back.")


class RefreshParams(Params):
    """`refresh_<ranker>`."""

    allow_removed: bool = Field(
        False, description="Take a list that lacks more than a fifth of the items of the version that serves."
    )


def refuse_unknown(context: Context) -> None:
    """Airflow takes any key of a run's conf; a misspelt one would be ignored in silence.

    Raises AirflowFailException.
    """
    from airflow.sdk.exceptions import AirflowFailException

    known = set(context["dag"].params)
    renamed = {old for old, new in RetrainParams.renamed.items() if new in known}
    unknown = sorted(set(context["dag_run"].conf or {}) - known - renamed)
    if unknown:
        raise AirflowFailException(
            f"unknown param: {', '.join(unknown)}. Known: {', '.join(sorted(known)) or 'none'}"
        )
