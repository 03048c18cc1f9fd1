"""Raw files by the day: `{date}` in a path says which day a file was delivered for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

_DATE = re.compile(r"\{date(?::([^{}]*))?\}")
_ISO = "%Y-%m-%d"
_DIRECTIVES = {"%Y": r"\d{4}", "%y": r"\d{2}", "%m": r"\d{2}", "%d": r"\d{2}", "%j": r"\d{3}"}
_WILD = re.compile(r"(\*\*/|\*|\?|\[[^\]]*\])")
_NUMBERS = {"*": "[^/]*", "**/": "(?:[^/]+/)*", "?": "[^/]"}


def names_days(pattern: str) -> bool:
    """Whether a path says by `{date}` which day its files are of."""
    return _DATE.search(pattern) is not None


def problem(pattern: str) -> str:
    """What is wrong with the `{date}` of a path; empty where nothing is, or it has none."""
    told: set[str] = set()
    for form in _forms(pattern):
        unknown = set(re.findall("%.?", form)) - set(_DIRECTIVES)
        if unknown:
            return f"{sorted(unknown)[0]} in {{date:{form}}} is none of {' '.join(_DIRECTIVES)}"
        told |= set(re.findall("%.", form))
    if names_days(pattern) and not (told & {"%Y", "%y"} and ({"%m", "%d"} <= told or "%j" in told)):
        return f"{pattern} does not tell a day: expected {{date}}, or {{date:%Y}}/{{date:%m}}/{{date:%d}}, …"
    return ""


def path_of(pattern: str, day: date) -> str:
    """`clicks-{date:%Y%m%d}.csv` → `clicks-20260105.csv`."""
    return _DATE.sub(lambda found: day.strftime(found.group(1) or _ISO), pattern)


def by_day(full: Path) -> dict[date, list[Path]]:
    """The files that a path with `{date}` means, by their day, sorted."""
    wild = Path(_any_day(str(full)))
    shape = re.compile(_shape(str(full)))
    found: dict[date, list[Path]] = {}
    for path in sorted(Path(wild.anchor).glob(str(wild.relative_to(wild.anchor)))):
        match = shape.fullmatch(path.as_posix())
        if match and (day := _day(match.groups(), list(_forms(str(full))))):
            found.setdefault(day, []).append(path)
    return dict(sorted(found.items()))


def _any_day(pattern: str) -> str:
    """`clicks-{date}*.csv` → `clicks-*.csv`: a glob takes two stars for folders of any depth."""
    parts = _DATE.sub(lambda found: re.sub("%.", "*", found.group(1) or _ISO), pattern).split("/")
    return "/".join(part if part == "**" else re.sub(r"\*+", "*", part) for part in parts)


def _forms(pattern: str) -> Iterator[str]:
    return (form or _ISO for form in _DATE.findall(pattern))


def _shape(pattern: str) -> str:
    """A regular expression with one group for each `{date}`."""
    made, begin = "", 0
    for found in _DATE.finditer(pattern):
        made += _wild(pattern[begin : found.start()])
        parts = re.split("(%.)", found.group(1) or _ISO)
        made += "(" + "".join(_DIRECTIVES.get(part, re.escape(part)) for part in parts) + ")"
        begin = found.end()
    return made + _wild(pattern[begin:])


def _wild(text: str) -> str:
    parts = _WILD.split(text)
    return "".join(
        _NUMBERS.get(part, part.replace("[!", "[^")) if place % 2 else re.escape(part)
        for place, part in enumerate(parts)
    )


def _day(values: Iterable[str], forms: list[str]) -> date | None:
    """The day that all of a path's dates name; None where they name none, or several."""
    values = list(values)
    told: dict[str, str] = {}
    for value, form in zip(values, forms, strict=True):
        shape = re.escape(form)
        for directive, digits in _DIRECTIVES.items():
            shape = shape.replace(re.escape(directive), f"({digits})")
        match = re.fullmatch(shape, value)
        told |= dict(zip(re.findall("%.", form), match.groups() if match else (), strict=False))
    try:
        day = datetime.strptime(" ".join(told.values()), " ".join(told)).date()
    except ValueError:
        return None
    same = all(day.strftime(form) == value for form, value in zip(forms, values, strict=True))
    return day if same else None


@dataclass(frozen=True)
class Span:
    """Days to land, `first` to `last` (None: no bound), whose rows may stand in the files of `around` days before and after."""

    first: date | None = None
    last: date | None = None
    around: int = 0

    def files(self, found: dict[date, list[Path]]) -> dict[date, list[Path]]:
        """Those of the files that may hold rows of these days."""
        return {day: paths for day, paths in found.items() if self._near(day, self.around)}

    def holds(self, day: date) -> bool:
        """Whether that day is one of these."""
        return self._near(day, 0)

    def _near(self, day: date, days: int) -> bool:
        margin = timedelta(days=days)
        return (self.first is None or day >= self.first - margin) and (
            self.last is None or day <= self.last + margin
        )
