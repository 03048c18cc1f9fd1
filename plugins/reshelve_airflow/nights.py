"""The first and the last decision of a night: what the run is about, and whether its version is released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DownstreamTasksSkipped

from reshelve.config.ranker import Ranker
from reshelve.errors import ConfigurationError
from reshelve.pipeline.references import check_references
from reshelve_airflow.forms import refuse_unknown, retrain_params
from reshelve_airflow.idle import skip_idle
from reshelve_airflow.params import ParamsError
from reshelve_airflow.partitions import PartitionError, partition_of
from reshelve_airflow.verb import VerbTask, checked, small

if TYPE_CHECKING:
    from airflow.sdk import Context

BACKFILL = "backfill"


class PartitionOperator(BaseOperator):
    """The day this run handles, `YYYY-MM-DD`; refuses params it does not know. Skips what the run has no work for."""

    def execute(self, context: Context) -> str:
        """Resolve it; see `partitions`."""
        refuse_unknown(context)
        day = _partition(context)
        skip_idle(self, context, day, context["params"])
        return day


class NightOperator(VerbTask, BaseOperator):
    """What a run of `retrain_<ranker>` is about.

    It begins the night, which pins the ranker file and the code for all of it (`pinned_night`). Hands on `partition`, `options`
    (partition and run, which every stage gets alike), the `run`'s id, the `source` of its data, `refusal` (why this run may not
    release; empty where it may) and `note`. With the param `plan` it shows the plan (the key `plan`) and skips the rest.
    """

    def __init__(self, *, ranker: Ranker, rounds: int, **kwargs: Any) -> None:
        super().__init__(multiple_outputs=True, **kwargs)
        self.ranker = ranker
        self.rounds = rounds

    def execute(self, context: Context) -> dict[str, Any]:
        """Check the params and resolve the partition. Nothing else is done where a value does not fit the ranker."""
        refuse_unknown(context)
        ranker = self.ranker
        try:
            params = retrain_params(ranker).read(context["params"])
            check_references(ranker.with_values(params.changes(rounds=self.rounds, tuning=ranker.tuning)))
        except ParamsError as error:
            raise AirflowFailException(str(error)) from error
        except ConfigurationError as error:
            raise AirflowFailException(f"{error.headline}: {error.detail}") from error
        partition, values = _partition(context), params.values(rounds=self.rounds, tuning=ranker.tuning)
        said = [*values, *([f"base={params.base}"] if params.base else [])]
        self.log.info("partition %s, %s", partition, " ".join(said) or "the ranker file as it is")
        refusal = release_refusal(
            context["dag_run"].run_type, automatic=ranker.release.automatic, asked=params.release
        )
        options = {"partition": partition, "set": values, "base": params.base}
        if params.plan:
            self._plan(context, options, refusal)
        begun = checked(self.run_verb("begin", {"ranker": ranker.name, **options}), "begin", context)
        return {
            "partition": partition,
            "options": {"partition": partition, "run": begun["digest"]},
            "run": begun["run"],
            "source": begun["source"],
            "refusal": refusal,
            "note": params.note or "",
        }

    def _plan(self, context: Context, options: dict[str, Any], refusal: str) -> None:
        """Show what the run would do, and leave it at that."""
        found = checked(self.run_verb("plan", {"ranker": self.ranker.name, **options}), "plan", context)
        asks = ", and waits for a person before it reaches all" if self.ranker.release.approval else ""
        said = (
            f"the version is not released: {refusal}"
            if refusal
            else f"a version that the gate promotes is released{asks}"
        )
        self.log.info("plan: %s; %s", found["headline"], said)
        context["ti"].xcom_push(key="plan", value=small({**found, "release": said}))
        raise DownstreamTasksSkipped(tasks=sorted(self.get_flat_relative_ids(upstream=False)))


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
