"""What a ranker file refers to: its clickstream source and its base model have to be there, and to fit it."""

from __future__ import annotations

from reshelve.errors import MisfitError
from reshelve.named_files import names
from reshelve.packaging.fitting import check_base
from reshelve.rankers import Ranker
from reshelve.settings import settings
from reshelve.training.base_home import home_of


def check_references(ranker: Ranker) -> None:
    """Raise MisfitError with the key of the ranker file that refers to nothing, or to what does not fit.

    A base that has to be fetched first is looked at when it is: by the examples stage, before anything is trained.
    """
    directory = settings().clickstreams_dir
    known = names(directory)
    if ranker.data.source not in known:
        raise MisfitError(
            "data.source",
            f"{ranker.data.source!r} is no clickstream source",
            f"known in {directory}: {', '.join(known) or 'none'}",
        )
    home = home_of(ranker.model.base)
    if home is not None:
        check_base(ranker, home)
