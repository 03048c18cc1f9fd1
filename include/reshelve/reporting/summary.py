"""The top of a report: what a person must know in a minute."""

from __future__ import annotations

from collections.abc import Iterator

from reshelve.reporting.night import Night
from reshelve.reporting.page import SummaryCard
from reshelve.reporting.sections.lineage import machine_price, stage_seconds
from reshelve.reporting.sections.quality import against, label
from reshelve.reporting.words import (
    count,
    duration,
    figure,
    interval,
    milliseconds,
    money,
    signed,
    signed_interval,
    size,
)

_DATA_MOOD = {"pass": "good", "warn": "doubtful", "stop": "bad", "missing": "bad"}


def headline(night: Night) -> str:
    """One sentence: what became of the night."""
    published = night.result("publish")
    if not night.result("gate"):
        last = next(reversed(night.results), None)
        return (
            f"The night did not reach the gate; its last finished stage is {last}."
            if last
            else "Nothing was done."
        )
    if not published:
        return "The gate has decided; the version is not published yet."
    if not published.get("published"):
        return "The gate rejected this version; nothing was published, and the stable version keeps serving."
    if night.verdict == "promote":
        return f"Published as version {published['version']}; it may be released."
    return f"Published as version {published['version']}; a person decides whether to release it."


def cards(night: Night) -> list[SummaryCard]:
    """The figures, as far as there are any."""
    return [*_quality(night), *_data(night), *_model(night), *_cost(night)]


def _quality(night: Night) -> Iterator[SummaryCard]:
    gate = night.result("gate")
    if not gate:
        return
    challenger = gate["challenger"]
    yield SummaryCard(
        f"{gate['metric']} of this version",
        figure(challenger["value"]),
        f"95 % interval {interval(challenger)}",
    )
    differences = against(gate)
    if "champion" in differences:
        found, version = differences["champion"], gate["champion"]["version"]
        mood = "good" if found["low"] > 0 else "bad" if found["high"] < 0 else ""
        yield SummaryCard(f"Against champion {version}", signed(found["value"]), signed_interval(found), mood)
    elif gate.get("champion"):
        yield SummaryCard("Against the champion", "not compared", "it is of a newer partition", "doubtful")
    else:
        yield SummaryCard("Against the champion", "none yet", "the first of its kind")
    rivals = {
        name: gate["baselines"][name] for name in gate.get("differences") or {} if name in gate["baselines"]
    }
    if rivals:
        best = max(rivals, key=lambda name: rivals[name])
        found = differences[best]
        mood = "good" if found["low"] > 0 else "bad" if found["high"] <= 0 else "doubtful"
        yield SummaryCard(
            f"Against {label(best)}, the best baseline", signed(found["value"]), signed_interval(found), mood
        )


def _data(night: Night) -> Iterator[SummaryCard]:
    tonight = night.tonight
    if tonight:
        more = f"{count(tonight.rows_in)} rows, {count(tonight.rows_quarantined)} in quarantine"
        yield SummaryCard("Data of the night", tonight.verdict.value, more, _DATA_MOOD[tonight.verdict.value])


def _model(night: Night) -> Iterator[SummaryCard]:
    packaged = night.result("package")
    if packaged.get("bytes"):
        latency = packaged.get("latency_ms") or {}
        first = next(iter(latency.items()), None)
        more = f"{milliseconds(first[1])} for a request of {first[0]}" if first else ""
        yield SummaryCard(f"Package, {packaged.get('precision', '')}", size(packaged["bytes"]), more)


def _cost(night: Night) -> Iterator[SummaryCard]:
    seconds, price = sum(stage_seconds(night).values()), machine_price(night)
    yield SummaryCard(
        "Machine time", duration(seconds), f"costs {money(seconds / 3600 * price)}" if price else ""
    )
