"""Whether customers ask other things than they did, and whether a version scores otherwise than at its beginning.

An effect size that knows its sample (`clickstream.drift`): a shift counts where the population stability index is above
the ranker file's limit and above what chance alone gives so many answers. Two judgements in a row make it certain. Once
a version came after it, the shift is over: the inputs now is what is usual.
"""

from __future__ import annotations

from datetime import datetime

from reshelve.monitoring.checks import confirmed, judged
from reshelve.monitoring.collect import Collected
from reshelve.monitoring.observations import Condition, Finding
from reshelve.monitoring.watch_state import Memory, VersionRecord
from reshelve.protocol.traffic import Counts
from reshelve.validation.drift import stability

Histogram = dict[str, int]

_REFERENCE_WINDOWS = 5  # of full weight in what customers used to ask; older ones fade
_INPUTS = {"lengths": "the length of the inputs", "topics": "the inputs"}


def check_drift(seen: Collected, memory: Memory, fresh: dict[int, Counts]) -> dict[str, float]:
    """Judge inputs and scores where enough answers came together; the indices that were measured, by name."""
    measured = _inputs(seen, memory, fresh)
    stable = seen.pointer.stable
    if stable is not None and stable in fresh:
        measured |= _scores(
            seen, memory.versions.setdefault(stable, VersionRecord()), memory, fresh[stable], stable
        )
    return measured


def _inputs(seen: Collected, memory: Memory, fresh: dict[int, Counts]) -> dict[str, float]:
    asked, rules = memory.asked, seen.ranker.watch
    for counts in fresh.values():
        asked.window = asked.window.plus(Counts(lengths=counts.lengths, topics=counts.topics))
    if sum(asked.window.lengths.values()) < rules.drift_requests:
        return {}
    window: dict[str, Histogram] = {"lengths": asked.window.lengths, "topics": asked.window.topics}
    asked.window = Counts()
    measured = {}
    for name, words in _INPUTS.items():
        reference, key = asked.reference.get(name, {}), f"inputs: {name}"
        if not reference or _learnt(memory, key):
            asked.reference[name] = window[name]
            judged(memory, key, None)
            continue
        found, finding = _shift(window[name], reference, rules.max_input_shift, name, words)
        measured[f"shift_of_{name}"] = round(found, 4)
        confirmed(memory, key, _dated(finding, memory.standing.get(key), seen.now))
        if finding is None:
            asked.reference[name] = _faded(reference, window[name])
    return measured


def _learnt(memory: Memory, key: str) -> bool:
    """Whether a version came after a shift was found: the inputs now is then what is usual."""
    found = memory.standing.get(key)
    if found is None or found.condition is not Condition.DRIFT or memory.stable is None:
        return False
    return memory.stable.since > datetime.fromisoformat(found.evidence["since"])


def _dated(finding: Finding | None, before: Finding | None, now: datetime) -> Finding | None:
    """With the time when it was first found."""
    if finding is None:
        return None
    since = now.isoformat() if before is None else before.evidence["since"]
    return finding.model_copy(update={"evidence": {**finding.evidence, "since": since}})


def _scores(
    seen: Collected, known: VersionRecord, memory: Memory, fresh: Counts, version: int
) -> dict[str, float]:
    """A version's scores beside its own first ones: those of two versions do not compare."""
    rules = seen.ranker.watch
    known.scoring = known.scoring.plus(Counts(scores=fresh.scores))
    if sum(known.scoring.scores.values()) < rules.drift_requests:
        return {}
    window, known.scoring = known.scoring.scores, Counts()
    if not known.scores:
        known.scores = window
        return {}
    found, finding = _shift(
        window, known.scores, rules.max_score_shift, "scores", f"the scores of version {version}"
    )
    confirmed(memory, "scores", finding)
    if finding is None:
        known.scores = _faded(known.scores, window)
    return {"shift_of_scores": round(found, 4)}


def _shift(
    now: Histogram, before: Histogram, most: float, name: str, words: str
) -> tuple[float, Finding | None]:
    found = stability(now, before)
    limit = max(most, found.chance)
    if found.psi <= limit:
        return found.psi, None
    evidence = {"psi": round(found.psi, 4), "by_chance": round(found.chance, 4), "answers": sum(now.values())}
    said = f"{words} shifted by {found.psi:.2f} (population stability index), {limit:.2f} is allowed"
    return found.psi, Finding(
        condition=Condition.DRIFT, check=f"drift of {name}", reason=said, evidence=evidence
    )


def _faded(reference: Histogram, window: Histogram) -> Histogram:
    """The reference with a window that is like it; its older part fades, so that slow change is followed."""
    total, new = sum(reference.values()), max(1, sum(window.values()))
    keep = min(1.0, _REFERENCE_WINDOWS * new / max(1, total))
    names = reference.keys() | window.keys()
    summed = {name: round(reference.get(name, 0) * keep) + window.get(name, 0) for name in names}
    return {name: count for name, count in summed.items() if count > 0}
