"""Load a YAML file into a frozen pydantic form, with errors that name the file, the line and what was expected."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from reshelve.config.safe_yaml import compose, load_yaml
from reshelve.errors import ConfigurationError
from reshelve.logs import logger

FormT = TypeVar("FormT", bound=BaseModel)
_MISFIT = "misfit"
Share = Annotated[float, Field(ge=0, le=1)]


class Form(BaseModel):
    """A frozen form that refuses unknown keys, and reads those that had another name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    renamed: ClassVar[Mapping[str, str]] = {}  # key as it was called → as it is called; a file is warned of

    @model_validator(mode="before")
    @classmethod
    def _by_new_names(cls, document: Any) -> Any:
        if not cls.renamed or not isinstance(document, dict):
            return document
        for old, new in cls.renamed.items():
            if old in document and new in document:
                raise misfit(f"it is called {new} now, and both are given: expected {new} alone", old)
        return {cls.renamed.get(key, key): value for key, value in document.items()}

    @classmethod
    def new_name(cls, path: str) -> str:
        """A dotted key as it is called now."""
        first, dot, rest = path.partition(".")
        return f"{cls.renamed.get(first, first)}{dot}{rest}"

    @classmethod
    def by_new_names(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Dotted key → value, each key as it is called now. Raises ConfigurationError where one is given by both names."""
        for path in values:
            new = cls.new_name(path)
            if new != path and new in values:
                raise ConfigurationError(
                    f"{path} is called {new} now, and both are given", f"expected {new} alone"
                )
        return {cls.new_name(path): value for path, value in values.items()}


def misfit(problem: str, *location: int | str) -> ValidationError:
    """What a validator raises that looks at several keys: the error of the key that is to be changed, with its line.

    `location` is the key's way from the model whose validator it is.
    """
    said = PydanticCustomError(_MISFIT, "{problem}", {"problem": problem})
    return ValidationError.from_exception_data(
        _MISFIT, [InitErrorDetails(type=said, loc=location, input=None)]
    )


def load_form(form: type[FormT], path: Path) -> FormT:
    """`path` as a validated `form`.

    Raises ConfigurationError with one line per problem: `file:line: key.path: what is wrong`.
    """
    document = load_yaml(path)
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path}:1: expected a mapping of keys", f"got {type(document).__name__}")
    renamed = form.renamed if issubclass(form, Form) else {}
    try:
        read = form.model_validate(document)
    except ValidationError as error:
        root = compose(path)
        problems = [f"{path}:{_line(root, e['loc'], renamed)}: {_said(form, e)}" for e in error.errors()]
        raise ConfigurationError(problems[0], "\n".join(problems[1:])) from error
    for old in renamed.keys() & document.keys():
        warn_of_name(f"{path}:{line_of(path, old)}", old, renamed[old])
    return read


@cache
def warn_of_name(place: str, old: str, new: str) -> None:
    """Say that a key had another name: once in a process, however often it is read."""
    logger(place=place).warning(f"{old} is called {new} now: rename it; the old name will be refused one day")


def problems_of(form: type[BaseModel], error: ValidationError) -> list[str]:
    """`key.path: what is wrong`, with what was given or what is known there, of each problem."""
    return [_said(form, problem) for problem in error.errors()]


def _said(form: type[BaseModel], problem: Any) -> str:
    return f"{'.'.join(map(str, problem['loc'])) or 'file'}: {problem['msg']}{_expected(form, problem)}"


def _expected(form: type[BaseModel], problem: Any) -> str:
    """What was given, or for an unknown key the nearest keys and those that are known there."""
    if problem["type"] == "extra_forbidden":
        section: Any = form
        for part in problem["loc"][:-1]:
            section = getattr(section, "model_fields", {}).get(part)
            section = getattr(section, "annotation", None)
        known = sorted(getattr(section, "model_fields", ()))
        near = nearest(".".join(map(str, problem["loc"])), list(_keys(form)))
        guess = f"; did you mean {' or '.join(near)}?" if near else ""
        return f" (expected one of: {', '.join(known)}){guess}" if known else guess
    if problem["type"] in ("missing", _MISFIT) or isinstance(problem.get("input"), dict | list):
        return ""
    return f" (got {reprlib.repr(problem.get('input'))})"


def nearest(path: str, known: list[str]) -> list[str]:
    """The known dotted keys that a misspelt one may stand for, the likeliest first: alike as a whole, or in their last part."""
    last = path.rpartition(".")[2]
    of_last = [key for key in known if key.rpartition(".")[2] == last]
    alike = [key for key in get_close_matches(path, known, n=4, cutoff=0.8) if not path.startswith(f"{key}.")]
    return list(dict.fromkeys([*of_last, *alike]))[:3]


def _keys(form: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a form, sections and what is in them."""
    for name, field in form.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")


def _line(node: Any, location: tuple[int | str, ...], renamed: Mapping[str, str]) -> int:
    """The line of the deepest node on `location` that the file really has (1-based); `renamed` as in `Form`."""
    line: int = node.start_mark.line + 1
    for depth, part in enumerate(location):
        if isinstance(node, yaml.MappingNode):
            names = {str(part), *(old for old, new in renamed.items() if new == part and not depth)}
            found = [(k, v) for k, v in node.value if k.value in names]
            if not found:
                continue  # pydantic names union members in the location; they are not in the file
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def line_of(path: Path, *location: int | str, renamed: Mapping[str, str] | None = None) -> int:
    """The 1-based line of a key in a YAML file, for errors that are found only when the file is used.

    `renamed`: as in the file's `Form`.
    """
    return _line(compose(path), location, renamed or {})


def set_path(document: dict[str, Any], path: str, value: Any) -> None:
    """Set a dotted `path` in nested mappings, making those on the way."""
    *parents, last = path.split(".")
    for part in parents:
        document = document.setdefault(part, {})
        if not isinstance(document, dict):
            raise ConfigurationError(f"{path}: {part} is a value, not a section")
    document[last] = value
