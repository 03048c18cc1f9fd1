"""What a person may say when triggering a DAG by hand: typed forms, checked without Airflow, shown by it.

Each form is written once; the fields of Airflow's trigger page, with their ranges, are derived from it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
)

from reshelve.config.bases import listed, read_bases
from reshelve.config.ranker import Data, Ranker, Training
from reshelve.config.tuning import Tuning
from reshelve.config.waves import width
from reshelve.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import Context, Param

_log = logging.getLogger(__name__)

Day = Annotated[
    date | None,
    Field(
        description="The day to process. Empty: the run's partition key, or else the day before its logical date."
    ),
]


_LIMITS = ("ge", "gt", "le", "lt", "min_length", "max_length")
_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "minLength", "maxLength")


def _as_in_file(section: type[BaseModel], key: str) -> dict[str, Any]:
    """The bounds of a key of the ranker file: a trigger takes what the file takes, no less and no more."""
    return {
        name: getattr(bound, name)
        for bound in section.model_fields[key].metadata
        for name in _LIMITS
        if getattr(bound, name, None) is not None
    }


class ParamsError(ValueError):
    """A run was given a param that does not exist or does not fit."""


class Params(BaseModel):
    """A frozen form that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    renamed: ClassVar[Mapping[str, str]] = {}  # param as it was called → as it is called

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Any:
        """Checked params, those by an old name too, with a warning. Raises ParamsError with one line per problem."""
        try:
            return cls.model_validate(cls._by_new_names(values))
        except ValidationError as error:
            problems = [
                f"param {'.'.join(map(str, e['loc']))}: {e['msg']} (got {e.get('input')!r})"
                for e in error.errors()
            ]
            raise ParamsError("\n".join(problems)) from error

    @classmethod
    def _by_new_names(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(values)
        for old, new in cls.renamed.items():
            given = found.pop(old, None)
            if given is None:
                continue
            if found.get(new) is not None:
                raise ParamsError(
                    f"param {old} is called {new} now, and both are given: expected {new} alone"
                )
            _log.warning("param %s is called %s now: the old name will be refused one day", old, new)
            found[new] = given
        return found


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


def airflow_params(form: type[Params]) -> dict[str, Param]:
    """The form as Airflow params: each text says what the field means and what it takes.

    Airflow's page shows `description` alone where there is one (`description_md` is for those without), and shows no
    range. Of a range that it does know it makes a promise of its own: 500 becomes 100 when the field is left, and what
    is pasted is cut. So the bounds are under `allOf`, which Airflow's server checks and its page does not read: a wrong
    value is refused before there is a run.
    """
    from airflow.sdk import Param
    from airflow.sdk.definitions._internal.types import NOTSET

    found = {}
    for name, field in form.model_json_schema()["properties"].items():
        flat = _flat(field)
        text = f"{flat.pop('description')} {_range(flat)}".strip()
        default = flat.pop("default", NOTSET)
        found[name] = Param(default, description=text, **out_of_the_page_s_reach(flat))
    return found


def out_of_the_page_s_reach(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same JSON schema with its bounds under `allOf`: checked by Airflow's server, not applied by its page."""
    bounds = {key: value for key, value in schema.items() if key in _BOUNDS}
    rest = {key: value for key, value in schema.items() if key not in _BOUNDS}
    return {**rest, "allOf": [*rest.get("allOf", ()), bounds]} if bounds else rest


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


def _flat(field: Mapping[str, Any]) -> dict[str, Any]:
    """pydantic's `anyOf [X, null]` as the one-level schema that the trigger page can show."""
    flat = {key: value for key, value in field.items() if key not in ("anyOf", "title")}
    for branch in field.get("anyOf", ()):
        flat.update({key: value for key, value in branch.items() if key != "type"})
        flat.setdefault("type", []).append(branch["type"])
    return flat


def _range(flat: Mapping[str, Any]) -> str:
    """What a field takes, in words; empty where anything of its type is."""
    low = flat.get("minimum", flat.get("exclusiveMinimum"))
    high = flat.get("maximum", flat.get("exclusiveMaximum"))
    if low is not None and high is not None:
        return f"{'More than ' if 'exclusiveMinimum' in flat else ''}{_number(low)} to {_number(high)}."
    if low is not None:
        return f"{'More than' if 'exclusiveMinimum' in flat else 'At least'} {_number(low)}."
    if high is not None:
        return f"{'Less than' if 'exclusiveMaximum' in flat else 'At most'} {_number(high)}."
    return f"At most {flat['maxLength']} characters." if "maxLength" in flat else ""


def _number(value: float) -> str:
    return f"{value:,.10g}"
