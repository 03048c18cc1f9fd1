"""What a next_item ranker learns: see `catalogue_learning.py`."""

from reshelve.kinds.catalogue_learning import CatalogueLearning

FACET = CatalogueLearning()
