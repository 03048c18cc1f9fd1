"""What customers get to see, and whether groups fare alike."""

from __future__ import annotations

from typing import Any

from reshelve.reporting.night import Night
from reshelve.reporting.page import Part, Section, Table
from reshelve.reporting.sections.quality import named
from reshelve.reporting.words import count, figure, share

_MOST_NAMED = 10


def shelf(night: Night) -> Section:
    """Exposure and fairness."""
    gate = night.result("gate")
    exposure, fairness = gate.get("exposure"), gate.get("fairness")
    if not exposure:
        return Section("shelf", "Exposure and fairness", "The gate has not evaluated any answers.", [])
    lead = (
        f"Of the first {exposure['depth'] or 10} positions: the share of new and rare items, and how "
        "much of the catalogue is shown at all. These figures have no limits; they are for "
        "information."
    )
    parts: list[Part] = [_exposure(exposure)]
    if fairness:
        parts += _fairness(fairness)
    return Section("shelf", "Exposure and fairness", lead, parts)


def _exposure(found: dict[str, Any]) -> Table:
    rows = [
        (name, share(each["new"]), share(each["rare"]), share(each["coverage"]))
        for name, each in named(found["shown"]).items()
    ]
    chosen, catalogue = found["chosen"], found["catalogue"]
    rows += [
        ("what customers chose", share(chosen["new"]), share(chosen["rare"]), share(chosen["coverage"])),
        (
            f"the catalogue ({count(catalogue['items'])})",
            share(catalogue["new"]),
            share(catalogue["rare"]),
            "",
        ),
    ]
    head = ("Shown by", "New items", "Rare items", "Of the catalogue")
    return Table(head, rows, "Exposure: a position counts 1 / log2(rank + 1)", narrow=True)


def _fairness(found: dict[str, Any]) -> list[Part]:
    rankers = found["rankers"]
    spread = [
        (name, figure(each["demographic_parity"]), figure(each["equalized_odds"]))
        for name, each in named(rankers).items()
    ]
    few = rankers["challenger"].get("too_few") or {}  # reports of earlier nights have none
    title = f"Fairness between groups ({found['group']}): the greatest difference; 0 means equal"
    if few:
        title += f". Too few questions to compare (under {found['least_queries']}): {_listed(few)}"
    parts: list[Part] = [
        Table(("Ranker", "Demographic parity", "Equalized odds"), spread, title, narrow=True)
    ]
    own, champion = rankers["challenger"], rankers.get("champion")
    groups = [
        (
            f"{group} (too few to say: {count(few[group])} questions)" if group in few else group, share(own["selection"][group]), share(own["true_positive"].get(group)),
            share(own["false_positive"].get(group)), *((share(champion["true_positive"].get(group)),) if champion else ()),
        )
        for group in own["selection"]
    ]  # fmt: skip
    head = (
        "Group",
        "Selected",
        "Of the relevant",
        "Of the others",
        *(("Of the relevant, champion",) if champion else ()),
    )
    parts.append(Table(head, groups, f"This version by {found['group']}", folded=True))
    return parts


def _listed(few: dict[str, int]) -> str:
    """Groups with too few questions, the largest first."""
    names = sorted(few, key=lambda name: (-few[name], name))
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(f"{name} ({count(few[name])})" for name in names[:_MOST_NAMED]) + more
