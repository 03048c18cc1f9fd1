"""What is done in each state of a release, and what it found: the work behind the table of `store.rollout`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import Pointer, read_pointer, step_began
from reshelve.deployments.release_table import Event, ReleaseState
from reshelve.logs import logger
from reshelve.protocol.traffic import Counts, TrafficReport, merged, read_traffic_reports
from reshelve.protocol.version_items import read_catalogue
from reshelve.rollout import fleet
from reshelve.rollout.canary_analysis import StepAnalysis, StepOutcome, judge_canary, lone_client, with_clicks
from reshelve.rollout.click_step import ClickStep
from reshelve.rollout.fleet import require_live, wait_for_agents
from reshelve.rollout.probe import ProbeQuestions, probe
from reshelve.rollout.recorded import Recorded, known_answers, logged_requests, recorded_requests
from reshelve.rollout.shadow import shadow
from reshelve.rollout.shop_index import place_of, wait_for_index
from reshelve.store.objects import ObjectStore
from reshelve.store.versions import require_manifest

_WARM_UP_REQUESTS = 16
_PROBE_SECONDS = 30.0  # for one request
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Work:
    """One release at one of its states."""

    store: ObjectStore
    ranker: Ranker
    version: int
    pointer: Pointer

    def servers(self) -> list[str]:
        """The model servers of the agents that live."""
        return sorted({report.server for report in require_live(self.store, self.ranker.name)})


@dataclass(frozen=True)
class ReleaseStep:
    """The words for people, the work, and the event that its success is."""

    words: str
    work: Callable[[Work], StepAnalysis]
    passes: Event


def _load(work: Work) -> StepAnalysis:
    name = work.ranker.name
    require_live(work.store, name, fleet.FIRST_REPORT_SECONDS)
    reports = wait_for_agents(
        work.store,
        name,
        work.pointer,
        work.version,
        lambda report: report.serving.canary == work.version,
        work.ranker.release.ready_seconds,
        f"loading version {work.version}",
    )
    failures = {r.agent: r.failures[work.version] for r in reports if work.version in r.failures}
    if failures:
        said = "; ".join(f"agent {agent}: {message}" for agent, message in failures.items())
        return StepAnalysis(StepOutcome.ROLL_BACK, said, {"failures": failures})
    agents = sorted(report.agent for report in reports)
    return StepAnalysis(StepOutcome.PROMOTE, f"AVAILABLE at {len(reports)} agents", {"agents": agents})


def _probe(work: Work) -> StepAnalysis:
    name, version = work.ranker.name, work.version
    # Once more: housekeeping may have been deciding while the offer was made.
    manifest = require_manifest(work.store, name, version)
    asked = ProbeQuestions(
        read_catalogue(work.store, name, version),
        recorded_requests(work.store, manifest)[:_WARM_UP_REQUESTS],
        known_answers(work.store, manifest),
    )
    patience = min(_PROBE_SECONDS, work.ranker.release.ready_seconds)
    answers = [probe(work.ranker, version, server, asked, patience) for server in work.servers()]
    bad = [f"{answer.server}: {answer.problem}" for answer in answers if answer.problem]
    if bad:
        return StepAnalysis(
            StepOutcome.ROLL_BACK,
            f"{name} version {version} failed its probe: {'; '.join(bad)}",
            {"bad": bad},
        )
    times = {answer.server: answer.milliseconds for answer in answers}
    said = ", ".join(f"{server} {milliseconds} ms" for server, milliseconds in times.items())
    checked = {"warm_up": len(asked.warm_up), "known_answers": asked.known is not None}
    return StepAnalysis(StepOutcome.PROMOTE, said, {"milliseconds": times, **checked})


def _shadow(work: Work) -> StepAnalysis:
    stable = work.pointer.stable
    if stable is None:
        return StepAnalysis(StepOutcome.PROMOTE, "nothing serves yet: nothing to compare with")
    requests: list[Recorded] = []
    for version in (work.version, stable):
        requests += recorded_requests(work.store, require_manifest(work.store, work.ranker.name, version))
    requests = [request for request in requests if request.signature == "serving_default"]
    requests += logged_requests(work.store, work.ranker, work.ranker.release.shadow.requests)
    if not requests:
        return StepAnalysis(StepOutcome.HOLD, "neither version has recorded requests")
    return shadow(work.ranker, stable, work.version, work.servers(), requests)


def _index(work: Work) -> StepAnalysis:
    """Wait until the shop's own index holds the version: who retrieves by it asks this version from here on."""
    index = work.ranker.release.index
    if index.url is None:
        said = "the ranker file no longer says release.index.url, which the release began with"
        return StepAnalysis(StepOutcome.HOLD, said)

    def goes_on() -> bool:
        return _still_here(work)

    answer = wait_for_index(index.url, work.version, index.minutes * 60, goes_on)
    said = f"the index at {place_of(index.url)} {answer.words}"
    found = {"index": place_of(index.url), "holds": answer.version}
    if answer.version == work.version:
        return StepAnalysis(StepOutcome.PROMOTE, said, found)
    if not goes_on():
        return StepAnalysis(StepOutcome.HOLD, "somebody else has moved the pointer")
    waited = f"expected version {work.version} within {index.minutes:g} minutes"
    return StepAnalysis(StepOutcome.HOLD, f"{said}; {waited}", found)


def _still_here(work: Work) -> bool:
    """Whether the release is where this work began."""
    now, then = read_pointer(work.store, work.ranker.name), work.pointer
    return now is not None and (now.canary, now.state, now.step) == (work.version, then.state, then.step)


def _canary(work: Work) -> StepAnalysis:
    """Wait until the step can be judged: at the least number of requests, and whenever they have doubled.

    Clicks are known days later: where they alone are missing, the step holds at once, and the watch has it asked again.
    """
    pointer, rules = work.pointer, work.ranker.release
    if pointer.stable is None:
        return StepAnalysis(StepOutcome.PROMOTE, "nothing serves yet: nothing to compare with")
    began = step_began(work.store, pointer)
    clicks = ClickStep(work.store, work.ranker, pointer, work.version)
    deadline = time.monotonic() + rules.canary.step_minutes * 60
    look_at = rules.canary.min_requests
    while True:
        reports = read_traffic_reports(work.store, work.ranker.name)
        canary = merged(reports, began).get(work.version, Counts())
        served = _served(work, reports, began)
        clicked = clicks.look() if clicks.asked else None
        finding = served if clicked is None else with_clicks(served, clicked)
        if clicked is not None and clicked.verdict is StepOutcome.ROLL_BACK:
            return finding
        over = time.monotonic() > deadline
        if canary.judged >= look_at or over:
            if finding.verdict is not StepOutcome.HOLD or served.verdict is StepOutcome.PROMOTE or over:
                return finding
            if "too few" not in served.reason:
                look_at = 2 * canary.judged
                logger(ranker=work.ranker.name).info("the step goes on", reason=finding.reason)
        if not _still_here(work):
            return StepAnalysis(StepOutcome.HOLD, "somebody else has moved the pointer")
        time.sleep(_LOOK_SECONDS)


def _served(work: Work, reports: Sequence[TrafficReport], began: int) -> StepAnalysis:
    """What callers measured since the step began. One client's word alone rolls nothing back."""
    stable, rules = work.pointer.stable, work.ranker.release
    assert stable is not None
    counts = merged(reports, began)
    found = judge_canary(counts.get(stable, Counts()), counts.get(work.version, Counts()), rules)
    if found.verdict is StepOutcome.ROLL_BACK:
        lone = lone_client(reports, began, stable, work.version, rules)
        if lone:
            return StepAnalysis(
                StepOutcome.HOLD, f"only the client {lone} says so: {found.reason}", found.evidence
            )
    return found


STAGES: Mapping[ReleaseState, ReleaseStep] = {
    ReleaseState.LOADING: ReleaseStep("load beside", _load, Event.LOADED),
    ReleaseState.PROBING: ReleaseStep("probe", _probe, Event.PROBED),
    ReleaseState.SHADOW: ReleaseStep("shadow", _shadow, Event.AGREED),
    ReleaseState.INDEXING: ReleaseStep("index", _index, Event.INDEXED),
    ReleaseState.CANARY: ReleaseStep("canary", _canary, Event.PASSED),
}
