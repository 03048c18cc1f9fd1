"""What is kept of people: the one list of places, from which housekeeping takes its limits and docs/reference its page.

Every object and file that a night writes falls under one entry, which says whether it holds anything of a person, why it is
kept, and what ends it (a test holds the list against a real night).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cached_property

EXAMPLES_KEPT = timedelta(days=14)
"""Texts and ids of a run, after its last stage: as long as somebody may clear a task of a failed night again."""

WORK_KEPT = timedelta(days=7)
"""A work directory that nothing has touched: it is a cache, and a night ends within a day."""

SCRATCH_KEPT = timedelta(days=2)
"""What a killed process left of its temporary directory."""


class End(StrEnum):
    """What ends it, as the page says it."""

    SOURCE = "`keep_days` of the mapping file, counted from the day; without it never"
    EXAMPLES = f"{EXAMPLES_KEPT.days} days after the run's examples were last written"
    RUN = "when the partition is older than every kept version (`release.keep`)"
    VERSION = "beyond `release.keep`; never what is stable, previous or canary"
    WATCH = "`watch.keep_days` of the ranker file"
    WORK = f"{WORK_KEPT.days} days after it was last touched"
    SCRATCH = f"with the process; {SCRATCH_KEPT.days} days after one that was killed"
    SILENT = "a week after the last report"
    LASTS = "stays"


class Forget(StrEnum):
    """What `reshelve forget` does about it, as the page says it."""

    ROWS = "their rows go"
    WHOLE = "goes as a whole, if it read a day with their rows"
    SAYS = "is named, with the time when it goes"
    NOTHING = "nothing of theirs is in it"
    KEEPS = "is what forgets"


@dataclass(frozen=True)
class Held:
    """One kind of object of the bucket, or of file below the home. `where`: `*` is any part of a name, `**` any number."""

    where: str
    what: str
    personal: str  # empty: nothing
    why: str
    end: End
    forget: Forget = Forget.NOTHING

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        parts = re.split(r"(\*\*|\*)", self.where)
        names = {"**": ".*", "*": "[^/]*"}
        return re.compile("".join(names.get(part, re.escape(part)) for part in parts))

    def holds(self, name: str) -> bool:
        """Whether a key, or a path below the home, is of this kind."""
        return self._pattern.fullmatch(name) is not None


_ROWS = "user and session ids (pseudonyms, where keys are set), queries (masked), the customer's group"

LANDED = Held(
    "clickstream/*/dt=*/**", "landed rows", _ROWS, "to validate and train from", End.SOURCE, Forget.ROWS
)
GOOD = Held("validated/*/dt=*/**good.parquet", "good rows", _ROWS, "to train from", End.SOURCE, Forget.ROWS)
QUARANTINE = Held(
    "validated/*/dt=*/**quarantine.parquet", "quarantined rows", _ROWS, "for a person to look at, and to restore",
    End.SOURCE, Forget.ROWS,
)  # fmt: skip
EXAMPLES = Held(
    "runs/*/*/*/examples/*.parquet", "a run's events, questions and examples",
    "user and session ids, queries (masked), histories", "the night's later stages read them", End.EXAMPLES, Forget.WHOLE,
)  # fmt: skip
REQUESTS = Held(
    "requests/*/dt=*/*", "logged requests", "session pseudonyms, queries (masked), what was answered",
    "clicks are joined with them; the shadow asks them again", End.WATCH, Forget.ROWS,
)  # fmt: skip
WORK = Held(
    "work/*/*/*/**", "work directories of runs", "as the run's files in the bucket", "a cache for the next stage",
    End.WORK, Forget.WHOLE,
)  # fmt: skip
SCRATCH_OF = {
    "land": "landing",
    "validate": "validating",
    "try": "trying a mapping file",
    "look": "looking at a source",
    "forget": "forgetting",
    "evaluate": "evaluating",
    "bench": "measuring",
}
"""What a temporary directory's name begins with, before a dash: what is done in it."""

_SCRATCH = tuple(
    Held(
        f"work/{name}-*/**",
        f"temporary directories of {done}",
        "raw and landed rows, until they are masked and have pseudonyms also as they came",
        "the stage works in them",
        End.SCRATCH,
    )
    for name, done in SCRATCH_OF.items()
)

BUCKET = (
    LANDED, GOOD, QUARANTINE,
    Held("validated/**", "verdicts, profiles, reports of a day", "", "drift is compared with them; people read them", End.SOURCE),
    Held("released/**", "quarantine rules that were set aside", "names of colleagues", "who decided", End.SOURCE),
    Held("catalogue/**", "product lists", "", "titles", End.LASTS),
    Held("forgotten/*/*.json", "whom to forget", "digests of ids", "rows that come again are left out", End.LASTS, Forget.KEEPS),
    EXAMPLES,
    Held("runs/*/*/stages/**", "which run has made what", "", "runs of a day share stages", End.RUN),
    Held("runs/*/*/*/pin.json", "how a night began", "", "its stages and its release go by it", End.RUN),
    Held("runs/**", "results, weights, packages and reports of runs", "queries that may be remembered (`remember`)", "stages are resumed and explained", End.RUN, Forget.WHOLE),
    Held("models/**", "published versions", "queries that may be remembered (`remember`)", "they serve", End.VERSION, Forget.SAYS),
    Held("deployments/*/agents/**", "agents' reports", "", "the release waits for them", End.SILENT),
    Held("deployments/*/traffic/**", "callers' counts", "", "the canary is judged by them", End.SILENT),
    Held("deployments/**", "pointers and logs of deployments", "names of colleagues", "what serves, and who decided", End.LASTS),
    Held("monitoring/**", "what the watch found: counts alone", "", "it compares", End.WATCH),
    REQUESTS,
    Held("searches/**", "trials of hyperparameters", "", "the next tuning begins with them", End.LASTS),
)  # fmt: skip
"""Of two that fit, the first."""

HOME = (
    Held("work/history/**", "profiles of earlier days", "", "a cache", End.LASTS),
    Held("work/.code/**", "code of nights under way", "", "they end with it", End.WORK),
    *_SCRATCH, WORK,
    Held("work/**", "locks, and records of bases", "", "stages wait for each other", End.WORK),
    Held("base/**", "bases: pre-trained models", "", "nights begin with them", End.LASTS),
    Held("cache/**", "product lists of versions", "", "a cache", End.LASTS),
    Held("serving/models/**", "copies of versions that are loaded", "queries that may be remembered (`remember`)", "they serve", End.VERSION, Forget.SAYS),
    Held("serving/admin/**", "the model server's socket", "", "its agent tells it what to load", End.LASTS),
    Held("keys/**", "keys", "", "versions are signed", End.LASTS),
    Held("logs/**", "logs of services", "", "to find faults", End.LASTS),
    Held("airflow/**", "Airflow's home: task logs, log-ins", "names of colleagues", "to find faults", End.LASTS),
    Held("postgres/**", "Airflow's database", "names of colleagues", "its history of runs", End.LASTS),
    Held("seaweedfs/**", "the local platform's bucket", "see the bucket", "see the bucket", End.LASTS),
    Held("gateway/tokens.json", "salted hashes of tokens, and whose they are", "names of callers", "it admits them", End.LASTS),
    Held("gateway/**", "configuration, certificate", "", "it serves", End.LASTS),
    Held("followed/**", "how far each deployment log was followed", "", "nobody may take a log back", End.LASTS),
    Held("env", "the local platform's variables, secrets among them", "", "shells and verbs reach it", End.LASTS),
    Held("platform.json", "processes of the local platform", "", "they are watched and stopped", End.LASTS),
    Held("restarts.json", "when they were started again", "", "what keeps dying is given up", End.LASTS),
    Held("monitoring.config", "configuration of the model server", "", "it is measured", End.LASTS),
    Held("new-keys", "roles whose keys were just made", "", "a start that was broken off goes on", End.LASTS),
    Held(".*.lock", "locks", "", "one command at a time", End.LASTS),
)  # fmt: skip


def held_as(name: str, places: tuple[Held, ...]) -> Held | None:
    """The entry of a key or a file; None where the list lacks one."""
    return next((held for held in places if held.holds(name)), None)
