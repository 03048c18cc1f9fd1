"""A form that a person fills in when triggering a DAG by hand: typed, checked without Airflow, shown by it.

The fields of Airflow's trigger page, with their ranges, are derived from the form; `forms` has those that there are.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from airflow.sdk import Param

_log = logging.getLogger(__name__)

_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "minLength", "maxLength")


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
