"""What a ranker file refers to: its clickstream source, its baselines and its base model have to be there, and to fit it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reshelve.config.named_files import names
from reshelve.config.ranker import Ranker, place_of, read_ranker
from reshelve.errors import ConfigurationError, MisfitError
from reshelve.evaluation.baselines import baselines
from reshelve.kind_registry import kind_of
from reshelve.model.base_home import home_of
from reshelve.model.fitting import check_base
from reshelve.settings import settings
from reshelve.statistics import noisy_counts


def load_ranker(name: str, overrides: dict[str, Any] | None = None, directory: Path | None = None) -> Ranker:
    """The ranker file `<name>.yaml`, with dotted `overrides` applied; what it refers to is there, and fits.

    Raises ConfigurationError naming file, line, path and what was expected.
    """
    ranker = read_ranker(name, overrides, directory)
    try:
        check_references(ranker)
    except MisfitError as error:
        place = f"ranker {name}" if error.key in (overrides or {}) else place_of(name, error.key, directory)
        raise ConfigurationError(f"{place}: {error.headline}", error.detail) from error
    return ranker


def check_references(ranker: Ranker) -> None:
    """Raise MisfitError with the key of the ranker file that refers to nothing, or to what does not fit.

    A base that has to be fetched first is looked at when it is: by the examples stage, before anything is trained.
    """
    directory = settings().clickstreams_dir
    known = names(directory)
    if ranker.data.source not in known:
        raise MisfitError(
            "data.source",
            f"{ranker.data.source!r} is not a clickstream source",
            f"known in {directory}: {', '.join(known) or 'none'}",
        )
    _check_beats(ranker)
    if ranker.remember.privacy.on and not noisy_counts.is_installed():
        raise MisfitError("remember.privacy.epsilon", noisy_counts.MISSING, noisy_counts.INSTALL)
    home = home_of(ranker.model.base)
    if home is not None:
        check_base(ranker, home, two_texts=kind_of(ranker.kind).two_texts)


def _check_beats(ranker: Ranker) -> None:
    known = [each.name for each in baselines(ranker.kind)]
    unknown = [name for name in ranker.gates.beats if name not in known]
    if unknown:
        raise MisfitError(
            "gates.beats",
            f"{', '.join(unknown)}: no baseline of a {ranker.kind} ranker",
            f"expected some of {', '.join(known)}",
        )
