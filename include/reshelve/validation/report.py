"""The one page that tells a person what is wrong with a partition: no script, no style sheet, no personal data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from statistics import median
from typing import Any

from reshelve.validation.engine import Engine
from reshelve.validation.profile import Profile
from reshelve.validation.rule_base import RowRule
from reshelve.validation.rules import RuleFile

SHOWN_COLUMNS = ("event_time", "event_type", "item_id", "quantity", "price")
"""What an example row shows. Who it was (user, session) and what they typed (query) stays out of reports."""

_EXAMPLES = 5

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c1c1c}}
table{{border-collapse:collapse;margin:.5rem 0 1.5rem}}td,th{{border:1px solid #ccc;padding:.2rem .6rem;text-align:left}}
.stop{{color:#a40000}}.warn,.quarantine{{color:#8a5a00}}.pass{{color:#1e6b1e}}
h1,h3,p,summary,li{{overflow-wrap:anywhere}}.scroll{{overflow-x:auto;margin:.5rem 0 1.5rem}}.scroll table{{margin:0}}
figure{{margin:1rem 0}}figure svg{{width:100%;height:auto}}figcaption{{color:#5b6669}}</style></head>
<body><h1>{title}: <span class="{verdict}">{verdict}</span></h1><p>{headline}</p>{trend}{body}</body></html>
"""


def examples(engine: Engine, rules: RuleFile, rule: RowRule) -> list[tuple[Any, ...]]:
    """A few rows of `events` that break `rule`, as SHOWN_COLUMNS."""
    aside = rule in rules.quarantine
    mask, bit = ("_aside", rules.quarantine.index(rule)) if aside else ("_told", rules.told.index(rule))
    numbers = engine.rows(
        f"SELECT _row FROM marks WHERE {mask} & {1 << bit} <> 0 ORDER BY _row LIMIT {_EXAMPLES}"
    )
    if not numbers:
        return []
    listed = ", ".join(str(number) for (number,) in numbers)
    return engine.rows(
        f"SELECT {', '.join(SHOWN_COLUMNS)} FROM events WHERE _row IN ({listed}) ORDER BY _row"
    )


def trend(profiles: Sequence[Profile]) -> str:
    """The rows of these days as a drawing, good ones and those held back; the last is the day of the page."""
    from reshelve.charts import partitions  # matplotlib costs a second, once per process

    days = [profile.partition for profile in profiles]
    good = [profile.good for profile in profiles]
    held_back = [profile.rows - profile.good for profile in profiles]
    usual = median(profile.rows for profile in profiles[:-1])
    said = (
        f"Landed rows of {len(days) - 1} usable earlier days (median {usual:,.0f}) and, last, of this day:"
        f" {profiles[-1].rows:,}, of which {held_back[-1]:,} are quarantined."
    )
    return f"<figure>{partitions(days, good, held_back)}<figcaption>{said}</figcaption></figure>"


def render(
    verdict: Mapping[str, Any],
    rows: Mapping[str, Sequence[Sequence[Any]]],
    passed: Sequence[str],
    drawing: str = "",
    docs: str = "",
) -> str:
    """The page of one verdict.

    `rows`: rule name → rows of SHOWN_COLUMNS. `passed`: descriptions of the rules that hold. `drawing`: `trend`'s.
    `docs`: the name of the Data Docs beside it, where there are any.
    """
    parts = ["<h2>Broken rules</h2>" if verdict["rules"] else "<p>No rule is broken.</p>"]
    for broken in verdict["rules"]:
        severity = escape(broken["severity"])
        parts.append(
            f'<h3><span class="{severity}">{severity}</span> {escape(broken["rule"])}</h3><p>{escape(broken["message"])}</p>'
        )
        if rows.get(broken["rule"]):
            parts.append(_table(rows[broken["rule"]]))
    if passed:
        items = "".join(f"<li>{escape(text)}</li>" for text in passed)
        parts.append(f"<details><summary>{len(passed)} rules passed</summary><ul>{items}</ul></details>")
    if docs:
        parts.append(f'<p><a href="{escape(docs)}">Results of Great Expectations</a></p>')
    return _PAGE.format(
        title=escape(f"{verdict['source']} {verdict['partition']}"),
        verdict=escape(str(verdict["verdict"])),
        headline=escape(str(verdict["headline"])),
        trend=drawing,
        body="".join(parts),
    )


def _table(rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in SHOWN_COLUMNS)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{escape('' if value is None else str(value)[:80])}</td>" for value in row)
        + "</tr>"
        for row in rows
    )
    return f'<p>For example:</p><div class="scroll"><table><tr>{head}</tr>{body}</table></div>'
