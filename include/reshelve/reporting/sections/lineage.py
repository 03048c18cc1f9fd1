"""What the night cost, and where its version comes from."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from reshelve.lineage.run import code_version
from reshelve.notation import plain
from reshelve.reporting.night import Night
from reshelve.reporting.page import Cell, FactTable, Section, Table
from reshelve.reporting.words import NONE, duration, money


def stage_seconds(night: Night) -> dict[str, float]:
    """Seconds by stage that this run did. Tuning whose trials were tasks of their own is counted by its trials' time."""
    did = {name: result for name, result in night.results.items() if name not in night.taken_over}
    found = {name: float(result.get("seconds", 0)) for name, result in did.items()}
    if "tune" in found:
        found["tune"] = max(found["tune"], 60 * float(night.results["tune"].get("minutes", 0)))
    return found


def machine_price(night: Night) -> float:
    """What an hour of the machine costs: `tuning.price_per_hour` is that of one of its trials."""
    return night.run.ranker.tuning.price_per_hour * night.run.ranker.tuning.parallel


def cost(night: Night) -> Section:
    """Minutes, and money where the ranker file names a price."""
    spent, price = stage_seconds(night), machine_price(night)
    total = sum(spent.values())

    def paid(seconds: float) -> str:
        return money(seconds / 3600 * price) if price else NONE

    rows = [
        (name, duration(seconds), _part(seconds, total), paid(seconds)) for name, seconds in spent.items()
    ]
    rows.append(("together", duration(total), "", paid(total)))
    lead = f"{duration(total)} of machine time in the stages that this run finished"
    lead += (
        f", {money(total / 3600 * price)} at {money(price)} an hour (tuning.price_per_hour × tuning.parallel)."
        if price
        else ". No cost: tuning.price_per_hour is 0 in the ranker file."
    )
    return Section(
        "cost", "Time and cost", lead, [Table(("Stage", "Time", "Share", "Cost"), rows, "Each stage's time")]
    )


def _part(seconds: float, total: float) -> str:
    return f"{100 * seconds / total:.0f} %" if total else ""


def lineage(night: Night) -> Section:
    """Digests: with them the night can be found, and done again."""
    run, base = night.run, night.result("train").get("base") or night.result("examples").get("base") or {}
    start = night.result("train").get("start") or {}
    champion = night.result("gate").get("champion") or {}
    published = night.result("publish")
    rows: list[tuple[str, Cell]] = [
        ("Ranker", f"{run.ranker.name}: {run.ranker.title} ({run.ranker.kind})"),
        ("Partition", run.partition.isoformat()),
        ("Run", _code(run.id)),
        ("Digest of the ranker file", _code(run.ranker.digest()[:16])),
        ("Code version", _code(code_version())),
        ("Base model", _base(base)),
        ("Training started from", _start(start)),
        ("Champion compared with", str(champion.get("version") or "none")),
        ("Published", _published(published)),
    ]
    spent = night.result("blend").get("privacy")
    if spent:
        rows.append(
            (
                "Counts released with",
                f"ε {plain(spent['epsilon'], 3)}, δ {plain(spent['delta'], 3)} for one customer",
            )
        )
    rows += [
        (f"Stage {name}", Markup("of run {}").format(_code(by))) for name, by in night.taken_over.items()
    ]
    verdicts = night.result("examples").get("verdicts") or {}
    read = Table(
        ("Partition", "Digest of its verdict"),
        [(day, _code(digest)) for day, digest in sorted(verdicts.items(), reverse=True)],
        f"{len(verdicts)} partitions read", words=2, folded=True,
    )  # fmt: skip
    lead = "What this version was made from. The same ranker file, partition, code and data reproduce it"
    lead += ", but for the noise on its counts." if spent else "."
    return Section("lineage", "Lineage", lead, [FactTable(rows), read] if verdicts else [FactTable(rows)])


def _code(text: str) -> Markup:
    return Markup("<code>{}</code>").format(text)


def _base(base: dict[str, Any]) -> str:
    named = base.get("name") or base.get("base")
    return f"{named}, revision {base['revision']}" if named and base.get("revision") else str(named or NONE)


def _start(start: dict[str, Any]) -> str:
    if not start:
        return NONE
    if start.get("version"):
        return f"the weights of version {start['version']}"
    return f"the base model ({start['reason']})" if start.get("reason") else "the base model"


def _published(published: dict[str, Any]) -> Cell:
    if not published:
        return "not yet"
    if not published.get("published"):
        return "no: the gate rejected it"
    return Markup("version {} at <code>{}</code>").format(published["version"], published.get("uri", ""))
