"""A kind that Reshelve does not know: the title of one item in, what is chosen after it out."""

from reshelve.config.yaml_models import misfit
from reshelve.kind import Kind


class Again(Kind):
    """item title → items."""

    name = "again"
    scores_catalogue = True
    two_texts = False

    def check(self, ranker):
        if ranker.model.towers:
            raise misfit("again has one text", "model", "towers")

    def may_show_text(self, ranker):
        return True


KIND = Again()
