"""What a night's counts, released with noise, cost a customer."""

from __future__ import annotations

from typing import Any

from reshelve.errors import DataError
from reshelve.notation import plain
from reshelve.reporting.night import Night
from reshelve.reporting.page import FactTable, Section
from reshelve.store.versions import list_versions, read_manifest


def privacy(night: Night) -> Section | None:
    """ε and δ of the night, and over the versions that are kept by now; nothing where counts are exact."""
    spent = night.result("blend").get("privacy")
    if not spent:
        return None
    lead = (
        f"The version's counts of searches are released with noise: (ε, δ) = ({plain(spent['epsilon'], 3)}, "
        f"{plain(spent['delta'], 3)}) for all that one customer did in the window. A customer is a user id, or a session where "
        "the user is not known; what has neither was not counted. It does not cover the weights of transformer and blend, "
        "which items the catalogue has, or the figures in this report."
    )
    rows = [
        ("Counted of a customer", f"{spent['per_customer']} pairs of query and item at most, the newest"),
        ("Noise", f"discrete Gaussian, standard deviation {plain(spent['noise'], 3)} customers"),
        ("Threshold", f"{plain(spent['threshold'], 3)} customers, noise included"),
        ("Over the versions kept when this was made", _over_versions(night)),
    ]
    return Section("privacy", "Differential privacy", lead, [FactTable(rows)])


def _over_versions(night: Night) -> str:
    """Whoever has several versions of one customer's behaviour has the sum: nights compose."""
    store, name = night.run.store, night.run.ranker.name
    released: list[dict[str, Any]] = []
    exact, damaged = 0, 0
    for version in list_versions(store, name):
        try:
            manifest = read_manifest(store, name, version)
        except DataError:
            damaged += 1
            continue
        if manifest is not None and manifest.lineage.privacy is not None:
            released.append(manifest.lineage.privacy.model_dump())
        elif manifest is not None:
            exact += 1
    said = "none is published with noise yet"
    if released:
        epsilon, delta = (sum(spent[name] for spent in released) for name in ("epsilon", "delta"))
        said = f"ε {plain(epsilon, 3)}, δ {plain(delta, 3)}, the sum over {len(released)}"
    if exact:
        said += f"; {exact} more with exact counts, for which nothing is promised"
    return said + (f"; {damaged} that cannot be read" if damaged else "")
