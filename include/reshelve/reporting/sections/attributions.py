"""For some predictions: which words led to them."""

from __future__ import annotations

from reshelve.kind_registry import kind_of
from reshelve.notation import plain
from reshelve.reporting.night import Night
from reshelve.reporting.page import Section, Words
from reshelve.reporting.words import share, signed

_NAMED = 4


def attributions(night: Night) -> Section:
    """Shaded texts; the explained model is the trained float one."""
    title = "Why it ranked so"
    if "train" not in night.results or "examples" not in night.results:
        return Section("attributions", title, "Nothing was trained, so there is nothing to explain.", [])
    from reshelve.reporting.explain import Explained, explain  # torch is heavy

    found = explain(night.run)
    if not found:
        rule = night.run.ranker.remember
        why = (
            "no text of the validation days may be shown (a query must have been asked by "
            f"{rule.customers} customers on {rule.days} days)"
        )
        if rule.privacy.on:
            why = "no customer's text is shown with remember.privacy"
        return Section(
            "attributions", title, f"No prediction is explained: the model is not kept, or {why}.", []
        )
    ranker = night.run.ranker
    how = kind_of(ranker.kind).explanation
    lead = (
        f"What each word adds to the {how.score}, by integrated gradients on the trained model, for the "
        "most confident predictions on validation days, correct ones first. Underlined words raise "
        "the score, dashed ones lower it."
    )
    if left_out := how.left_out(ranker):
        lead += f" {left_out}"

    def shown(each: Explained) -> Words:
        most = max((abs(word.adds) for word in each.words), default=0.0) or 1.0
        together: dict[str, float] = {}
        for word in each.words:
            together[word.text] = together.get(word.text, 0.0) + word.adds
        strongest = sorted(together.items(), key=lambda found: (-abs(found[1]), found[0]))[:_NAMED]
        named = ", ".join(f"{text} {signed(adds, 2)}" for text, adds in strongest)
        came = "came true" if each.came_true else "was wrong"
        return Words(
            title=each.answer,
            more=f"{came}; chance {share(each.chance)}",
            words=[(word.text, word.adds / most) for word in each.words],
            strongest=f"Strongest: {named}. Unexplained: {plain(each.left_over, 2)}.",
        )

    return Section("attributions", title, lead, [shown(each) for each in found])
