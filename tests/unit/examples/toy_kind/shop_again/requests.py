"""Its signature has one input, `seen`."""

from reshelve.errors import ConfigurationError
from reshelve.kinds.catalogue_requests import CatalogueRequests


class AgainRequests(CatalogueRequests):
    """`seen` [B]."""

    text = "seen"
    tokens = 8

    def probe(self, items):
        return {"seen": [items[0].title]}

    def demonstrate(self, rows):
        return None

    def check_question(self, ranker, history, query, items):
        raise ConfigurationError(f"{ranker} is not asked by hand")

    def candidates_signature(self):
        return None


FACET = AgainRequests()
