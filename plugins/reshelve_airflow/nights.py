"""The first and the last decision of a night: what the run is about, and whether its version is released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from reshelve.tuning.form import Search
from reshelve_airflow.params import ParamsError, RetrainParams, refuse_unknown
from reshelve_airflow.partitions import PartitionError, partition_of

if TYPE_CHECKING:
    from airflow.sdk import Context

BACKFILL = "backfill"


class PartitionOperator(BaseOperator):
    """The day this run handles, `YYYY-MM-DD`; refuses params it does not know."""

    def execute(self, context: Context) -> str:
        """Resolve it; see `partitions`."""
        refuse_unknown(context)
        return _partition(context)


class NightOperator(BaseOperator):
    """What a run of `retrain_<ranker>` is about.

    Hands on `partition`, `options` (partition and overrides, which every stage of the run gets alike), `refusal` (why this run
    may not release; empty where it may) and `note`.
    """

    def __init__(self, *, rounds: int, search: Search, automatic: bool, **kwargs: Any) -> None:
        super().__init__(multiple_outputs=True, **kwargs)
        self.rounds = rounds
        self.search = search
        self.automatic = automatic

    def execute(self, context: Context) -> dict[str, Any]:
        """Check the params and resolve the partition."""
        refuse_unknown(context)
        try:
            params = RetrainParams.read(context["params"])
        except ParamsError as error:
            raise AirflowFailException(str(error)) from error
        partition, values = _partition(context), params.values(rounds=self.rounds, search=self.search)
        self.log.info("partition %s, %s", partition, " ".join(values) or "the ranker file as it is")
        refusal = release_refusal(context["dag_run"].run_type, automatic=self.automatic, asked=params.release)
        return {
            "partition": partition,
            "options": {"partition": partition, "set": values},
            "refusal": refusal,
            "note": params.note or "",
        }


class DecideReleaseOperator(BaseOperator):
    """The version to release, or a skip that says why there is none."""

    template_fields: Sequence[str] = ("published", "refusal")

    def __init__(self, *, published: Any, refusal: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.published = published
        self.refusal = refusal

    def execute(self, context: Context) -> int:
        """Decide."""
        refusal = publication_refusal(self.published) or self.refusal
        if refusal:
            self.log.info("not released: %s", refusal)
            raise AirflowSkipException(f"not released: {refusal}")
        return int(self.published["version"])


def release_refusal(run_type: str, *, automatic: bool, asked: bool) -> str:
    """Why a run may not release, whatever it trains; empty where it may.

    A backfill never releases: it would put yesterday's shelves over today's.
    """
    if run_type == BACKFILL:
        return "this run is a backfill; backfills publish and never release"
    if not asked:
        return "this run was started with release switched off"
    if not automatic:
        return "the ranker file says release.automatic: false"
    return ""


def publication_refusal(published: Mapping[str, Any]) -> str:
    """Why a published version is not released; empty where it may be."""
    verdict = published.get("verdict")
    if not published.get("published"):
        return f"nothing was published ({published.get('reason') or verdict})"
    if verdict != "promote":
        return f"the gate's verdict is {verdict} ({published.get('reason') or 'see its report'})"
    return ""


def _partition(context: Context) -> str:
    try:
        return partition_of(context["dag_run"], context["params"]).isoformat()
    except PartitionError as error:
        raise AirflowFailException(str(error)) from error
