"""It learns as every kind over the catalogue does."""

from reshelve.kinds.catalogue_learning import CatalogueLearning

FACET = CatalogueLearning()
