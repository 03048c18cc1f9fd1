"""What is made beside a night and never is a reason for it to fail: its report, its run in MLflow. And the pages linked from tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from airflow.sdk import BaseOperatorLink
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
)

from reshelve_airflow.idle import Idle
from reshelve_airflow.landing import why_others
from reshelve_airflow.verb import ReshelveOperator

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey


def _page(path: str) -> str:
    """The absolute address of one of our pages: a log or a letter is read where there is no page to be relative to."""
    from airflow.configuration import conf

    base = (
        conf.get("api", "base_url", fallback="")
        or f"http://localhost:{conf.get('api', 'port', fallback='8080')}"
    )
    return urljoin(f"{base.rstrip('/')}/", path)


class ReportLink(BaseOperatorLink):
    """From the task to the page that shows the report behind the log-in."""

    name = "Report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The page's address; empty where the task made no report."""
        from airflow.sdk.execution_time.xcom import XCom

        made = XCom.get_value(ti_key=ti_key, key="return_value") or {}
        address = made.get("address")
        return _page(address) if address else ""


class BesideOperator(ReshelveOperator):
    """A verb that a night does not need. Whatever goes wrong with it is in its log; after the last retry the task is skipped."""

    def execute(self, context: Context) -> Any:
        """Run the verb."""
        try:
            return super().execute(context)
        except AirflowSkipException:
            raise
        except AirflowFailException as error:
            raise AirflowSkipException(f"no {self.verb}: {error}") from error
        except (AirflowException, AirflowTaskTimeout) as error:
            if context["ti"].try_number <= context["ti"].max_tries:
                raise
            self.log.warning("no %s after the last retry: %s", self.verb, error)
            raise AirflowSkipException(f"no {self.verb}: {error}") from error


class ReportOperator(BesideOperator):
    """`reshelve report`. Its log ends with the report's address: a task's page opens with the log."""

    operator_extra_links = (ReportLink(),)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(verb="report", skip_when={"made": False}, **kwargs)

    def execute(self, context: Context) -> Any:
        """Make it."""
        made = super().execute(context)
        self.log.info("Report: %s", _page(made["address"]))
        return made


class TrackOperator(BesideOperator):
    """`reshelve track`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(verb="track", skip_when={"tracked": False}, **kwargs)


class ValidationLink(BaseOperatorLink):
    """From the task to a page of the verdict. A stopped day has one too: so nothing is read from the task's result."""

    name = "Validation report"
    file = "report.html"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The page's address; empty where the task did not learn its partition."""
        options = getattr(operator, "options", {})
        source, partition = options.get("source"), options.get("partition")
        if not (isinstance(source, str) and isinstance(partition, str)):
            return ""
        return _page(f"reshelve/validation/{source}/{partition}/{self.file}")


class DataDocsLink(ValidationLink):
    """To what Great Expectations was asked and said."""

    name = "Data Docs"
    file = "data_docs.html"


class ValidateOperator(Idle, ReshelveOperator):
    """`reshelve validate` of one source and partition."""

    operator_extra_links = (ValidationLink(), DataDocsLink())

    def __init__(self, *, source: str, partition: Any, **kwargs: Any) -> None:
        super().__init__(
            verb="validate",
            options={"source": source, "partition": partition},
            skip_when={"verdict": "missing"},
            **kwargs,
        )
        self.source = source

    def why_idle(self, known: Mapping[str, Any]) -> str:
        """By the params of the run."""
        return why_others(self.source, known)

    def execute(self, context: Context) -> Any:
        """Judge it, unless the run is about another source."""
        self.skip_if_idle(context["params"])
        return super().execute(context)
