"""What a person may say when triggering a DAG by hand: typed forms, checked without Airflow, shown by it.

Each form is written once; the fields of Airflow's trigger page, with their ranges, are derived from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from reshelve.tuning.form import Search
from reshelve.tuning.plan import width

if TYPE_CHECKING:
    from airflow.sdk import Context, Param

Day = Annotated[
    date | None,
    Field(
        description="The day to handle. Empty: the run's partition key, else the day before its logical date."
    ),
]


class ParamsError(ValueError):
    """A run was given a param that does not exist or does not fit."""


class Params(BaseModel):
    """A frozen form that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Any:
        """Checked params. Raises ParamsError with one line per problem."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            problems = [
                f"param {'.'.join(map(str, e['loc']))}: {e['msg']} (got {e.get('input')!r})"
                for e in error.errors()
            ]
            raise ParamsError("\n".join(problems)) from error


class ClickstreamParams(Params):
    """`clickstream`."""

    partition: Day = None


class RetrainParams(Params):
    """`retrain_<ranker>`: what is empty keeps the ranker file's value."""

    partition: Day = None
    epochs: float | None = Field(None, gt=0, le=100, description="Passes over the training examples.")
    max_minutes: float | None = Field(
        None, gt=0, le=1440, description="Training stops after this many minutes with what it has."
    )
    trials: int | None = Field(
        None, ge=0, le=200, description="Trials of the hyperparameter search; 0 leaves the search out."
    )
    search_minutes: float | None = Field(
        None, gt=0, le=1440, description="No trial starts after this many minutes."
    )
    base: str | None = Field(
        None,
        min_length=1,
        max_length=500,
        description="Pretrained model: a hub name, s3://…, a local directory, or package:<installed package>.",
    )
    release: bool = Field(
        True,
        description="Release the version if the gate promotes it and the ranker file allows it. Backfills never release.",
    )
    note: str | None = Field(
        None, max_length=500, description="Why this run; it becomes the release's reason."
    )

    def values(self, *, rounds: int, search: Search) -> list[str]:
        """`path=value` for every stage of the run, the same list for each: it is part of the run's identity.

        The DAG has a fixed number of `rounds`, enough for the ranker file's `search`; more trials than those hold make
        each round wider.
        """
        found: dict[str, Any] = {
            "training.epochs": self.epochs,
            "training.max_minutes": self.max_minutes,
            "search.trials": self.trials,
            "search.max_minutes": self.search_minutes,
            "model.base": self.base,
        }
        if self.trials is not None:
            parallel = width(search.model_copy(update={"trials": self.trials}), rounds)
            found["search.parallel"] = parallel if parallel > search.parallel else None
        return [f"{path}={value}" for path, value in found.items() if value is not None]


class ReleaseParams(Params):
    """`release_<ranker>`."""

    version: int = Field(ge=1, description="The published version, for example 20110830001.")
    reason: str = Field("", max_length=500, description="Why, for the deployment log.")
    allow_older: bool = Field(False, description="Let an older partition replace a newer one.")
    allow_held: bool = Field(
        False, description="Release a version that the gate held. A person decides that."
    )


def _one_of(rankers: Sequence[str]) -> AfterValidator:
    def known(name: str) -> str:
        if name not in rankers:
            raise ValueError(f"no such ranker; known: {', '.join(rankers)}")
        return name

    return AfterValidator(known)


def decision_params(rankers: Sequence[str]) -> type[Params]:
    """The form of `approve` and `withdraw`: a person's word on a release under way."""

    class DecisionParams(Params):
        """`approve`, `withdraw`."""

        ranker: Annotated[str, _one_of(rankers)] = Field(
            description="Whose release.", json_schema_extra={"enum": list(rankers)}
        )
        version: int = Field(ge=1, description="The version that is being released; another is left alone.")
        reason: str = Field("", max_length=500, description="Why, for the deployment log.")

    return DecisionParams


def rollback_params(rankers: Sequence[str]) -> type[Params]:
    """The form of `rollback`: its rankers are those that have a file."""

    class RollbackParams(Params):
        """`rollback`."""

        ranker: Annotated[str, _one_of(rankers)] = Field(
            description="Whose version to take back.", json_schema_extra={"enum": list(rankers)}
        )
        to: int | None = Field(
            None, ge=1, description="The version to go back to. Empty: the one that served before."
        )
        reason: str = Field("", max_length=500, description="Why, for the deployment log.")
        dry_run: bool = Field(
            True, description="Only say what would happen. Switch it off to really roll back."
        )

    return RollbackParams


def airflow_params(form: type[Params]) -> dict[str, Param]:
    """The form as Airflow params, with its ranges in the text, because the trigger page does not show them."""
    from airflow.sdk import Param
    from airflow.sdk.definitions._internal.types import NOTSET

    found = {}
    for name, field in form.model_json_schema()["properties"].items():
        flat = _flat(field)
        text = flat.pop("description")
        default = flat.pop("default", NOTSET)
        found[name] = Param(
            default, description=text, description_md=f"{text} {_range(flat)}".strip(), **flat
        )
    return found


def refuse_unknown(context: Context) -> None:
    """Airflow takes any key of a run's conf; a misspelt one would be ignored in silence.

    Raises AirflowFailException.
    """
    from airflow.sdk.exceptions import AirflowFailException

    known = set(context["dag"].params)
    unknown = sorted(set(context["dag_run"].conf or {}) - known)
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
    low = flat.get("minimum", flat.get("exclusiveMinimum"))
    high = flat.get("maximum", flat.get("exclusiveMaximum"))
    if low is not None and high is not None:
        return f"**{'More than ' if 'exclusiveMinimum' in flat else ''}{low:g} to {high:g}.**"
    if low is not None:
        return f"**At least {low:g}.**"
    return f"**At most {flat['maxLength']} characters.**" if "maxLength" in flat else ""
