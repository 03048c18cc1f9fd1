"""The report stage: what a night's stages left, as one HTML file beside the run.

It is made of what is there: a night that ended early, or before its release, has a report too. Made again, it is made anew
only where something has changed since.
"""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime

from reshelve.lineage.run import Result, Run
from reshelve.logs import logger
from reshelve.reporting.address import FILE, STAGE, report_address, report_name, report_statement
from reshelve.reporting.night import Night
from reshelve.reporting.page import Page, Section, render, templates
from reshelve.reporting.sections.attributions import attributions
from reshelve.reporting.sections.data import data, examples
from reshelve.reporting.sections.learning import blend, training, tuning
from reshelve.reporting.sections.lineage import cost, lineage
from reshelve.reporting.sections.privacy import privacy
from reshelve.reporting.sections.quality import calibration, quality, slices
from reshelve.reporting.sections.shelf import shelf
from reshelve.reporting.sections.speed import compression, latency
from reshelve.reporting.summary import cards, headline
from reshelve.store.signatures import SIGNATURE, Signed, key_to_sign, signed


def report(run: Run) -> Result:
    """Make the run's report.

    Writes report.html. A run of which no stage is done has none: `made` is then false.
    """
    log = logger(stage=STAGE, run=run.id)
    stage = run.stage(STAGE)
    with stage.lock():
        night = Night.read(run)
        if not night.results:
            return {
                "made": False,
                "headline": f"{run.id}: no stage is finished, so there is nothing to report",
            }
        made_of = hashlib.sha256(night.digest.encode() + templates()).hexdigest()[:16]
        found, key = stage.result(), key_to_sign()
        if found is not None and found.get("made_of") == made_of and (key is None or found.get(SIGNATURE)):
            log.info("nothing has changed, reused")
            return {**found, "reused": True}
        started = time.monotonic()
        page = render(page_of(night, sections(night)))
        (stage.directory / FILE).write_text(page, encoding="utf-8")
        name, made_at = report_name(run, night.version), datetime.now(UTC).isoformat()
        statement = report_statement(f"{stage.prefix}/{FILE}", page.encode(), made_at)
        result = stage.commit(
            {
                "made": True,
                "verdict": night.verdict,
                "name": name,
                "key": f"{stage.prefix}/{FILE}",
                "address": report_address(run.ranker.name, name),
                "bytes": len(page.encode()),
                "made_of": made_of,
                "made_at": made_at,
                SIGNATURE: signed(statement, key, Signed.REPORT).get(SIGNATURE),
                "run": run.id,
                "seconds": round(time.monotonic() - started, 1),
            }
        )
    log.info("made", bytes=result["bytes"], seconds=result["seconds"])
    return {**result, "reused": False}


def sections(night: Night) -> list[Section]:
    """All sections, in the order of the night."""
    order = (
        data, examples, tuning, training, blend, privacy, quality, slices, calibration, shelf, compression, latency,
        attributions, cost, lineage,
    )  # fmt: skip
    return [made for part in order if (made := part(night)) is not None]


def page_of(night: Night, parts: list[Section]) -> Page:
    """The whole report."""
    run = night.run
    return Page(
        title=f"{run.ranker.title}: the night of {run.partition.isoformat()}",
        subtitle=f"Reshelve · retrain_{run.ranker.name}"
        + (f" · version {night.version}" if night.version else ""),
        verdict=night.verdict,
        headline=headline(night),
        reasons=night.result("gate").get("reasons") or [],
        cards=cards(night),
        sections=parts,
        made=f"Made from run {run.id}. This file works offline.",
    )
