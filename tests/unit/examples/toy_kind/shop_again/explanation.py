"""And is explained so."""

from reshelve.kinds.catalogue_explanation import CatalogueExplanation

FACET = CatalogueExplanation()
