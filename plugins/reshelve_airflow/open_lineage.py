"""What Airflow's OpenLineage provider is told of a verb: its datasets with their facets, and what became of the run.

Off by default: nothing of this is imported unless `apache-airflow-providers-openlineage` is installed (the extra `openlineage`) and
its own configuration names a transport (`AIRFLOW__OPENLINEAGE__TRANSPORT`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reshelve.settings import settings
from reshelve.tracking.datasets import Dataset, lineage_of


def operator_lineage(verb: str, options: Mapping[str, Any], result: Mapping[str, Any]) -> Any:
    """The provider's OperatorLineage."""
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.facet_v2 import documentation_job, tags_run

    found = lineage_of(verb, options, result)
    labels = [
        tags_run.TagsRunFacetFields(key=f"reshelve.{name}", value=str(value), source="RESHELVE")
        for name, value in found.facts.items()
    ]
    return OperatorLineage(
        inputs=[_dataset(each, read=True) for each in found.inputs],
        outputs=[_dataset(each, read=False) for each in found.outputs],
        run_facets={"tags": tags_run.TagsRunFacet(tags=labels)} if labels else {},
        job_facets={"documentation": documentation_job.DocumentationJobFacet(description=f"reshelve {verb}")},
    )


def _dataset(each: Dataset, *, read: bool) -> Any:
    from openlineage.client.event_v2 import InputDataset, OutputDataset
    from openlineage.client.facet_v2 import (
        data_quality_assertions_dataset,
        data_quality_metrics_input_dataset,
        dataset_version_dataset,
        output_statistics_output_dataset,
    )

    namespace = f"s3://{settings().bucket}"
    facets: dict[str, Any] = {}
    if each.version:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=each.version)
    if not read:
        counted: dict[str, Any] = {}
        if each.rows is not None or each.bytes is not None:
            counted["outputStatistics"] = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                rowCount=each.rows, size=each.bytes
            )
        return OutputDataset(namespace=namespace, name=each.name, facets=facets, outputFacets=counted)
    measured: dict[str, Any] = {}
    if each.rows is not None:
        measured["dataQualityMetrics"] = (
            data_quality_metrics_input_dataset.DataQualityMetricsInputDatasetFacet(
                columnMetrics={}, rowCount=each.rows
            )
        )
    if each.broken_rules:
        measured["dataQualityAssertions"] = data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet(
            assertions=[
                data_quality_assertions_dataset.Assertion(assertion=rule, success=False)
                for rule, _, _ in each.broken_rules
            ]
        )
    return InputDataset(namespace=namespace, name=each.name, facets=facets, inputFacets=measured)
