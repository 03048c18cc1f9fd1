"""What Great Expectations was asked about a partition and what it said, as its Data Docs, in one file.

Its own pages load scripts, styles and a picture from seven hosts. Here its renderer says what there is to say, and a
template and style sheet of this project show it: nothing is loaded, and nobody is called. No value of a row is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import great_expectations as gx
from great_expectations.core import ExpectationSuiteValidationResult
from great_expectations.render.renderer import ValidationResultsPageRenderer
from great_expectations.render.view import DefaultJinjaPageView

NAME = "data_docs.html"

_COUNTS = ("element_count", "unexpected_count", "unexpected_percent", "missing_count", "missing_percent")
_OBSERVED = "observed_value"


def page(title: str, results: Sequence[Any]) -> str:
    """The file. `results` are Great Expectations' validation results of a partition's tables."""
    held = sum(bool(result.success) for result in results)
    numbers = {
        "evaluated_expectations": len(results),
        "successful_expectations": held,
        "unsuccessful_expectations": len(results) - held,
        "success_percent": 100 * held / max(1, len(results)),
    }
    said = ExpectationSuiteValidationResult(
        success=held == len(results),
        results=[_without_values(result) for result in results],
        suite_name=title,
        statistics=numbers,
        meta={"run_id": {"run_name": None, "run_time": None}},
    )
    view = _view()
    unique = count(1)  # else another number each time: the same verdict has the same bytes
    view.env.filters["generate_html_element_uuid"] = lambda prefix: f"{prefix}{next(unique)}"
    document = ValidationResultsPageRenderer().render(said)
    return str(
        view.render(
            document, "data_docs.j2", title=title, held=held, asked=len(results), version=gx.__version__
        )
    )


@lru_cache(maxsize=1)
def _view() -> Any:
    """One a process: it compiles its templates, which takes as long as all that they show."""
    return DefaultJinjaPageView(custom_views_directory=str(Path(__file__).parent / "templates"))


def _without_values(result: Any) -> Any:
    """The same result with its counts and what was observed of a whole column, as plain numbers."""
    kept = {key: result.result[key] for key in (*_COUNTS, _OBSERVED) if key in result.result}
    result.result = {key: value.item() if hasattr(value, "item") else value for key, value in kept.items()}
    return result
