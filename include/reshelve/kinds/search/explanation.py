"""How a prediction of search is explained."""

from reshelve.kinds.catalogue_explanation import CatalogueExplanation

FACET = CatalogueExplanation(
    "This covers only the transformer; the counts of past choices are not explained."
)
