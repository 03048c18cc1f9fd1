"""Two events of one visit, one after the other, are an example."""

from reshelve.examples.drafts import Draft
from reshelve.examples.formats import CATALOGUE_EXAMPLES, HOLDOUT, HoldoutQuery, write_rows
from reshelve.examples.tokens import encode, load_tokenizer
from reshelve.kind import Examples

_STEPS = """
SELECT * FROM (
    SELECT lag(coalesce(own_title, item_id)) OVER visit AS seen, item_id, part, session_id
    FROM events WINDOW visit AS (PARTITION BY session_id, day ORDER BY event_time, line)
) WHERE seen IS NOT NULL ORDER BY ALL
"""


class AgainExamples(Examples):
    """From visits of two events."""

    def expected(self, ranker):
        return "visits of two events"

    def write(self, work):
        tokenizer = load_tokenizer(work.directory / "tokenizer.json", work.run.ranker.model.max_length)
        rows = work.connection.execute(_STEPS).fetchall()
        counts = {}
        for part in ("train", "validation"):
            known = [
                (seen, work.catalogue.index[item])
                for seen, item, of, _ in rows
                if of == part and item in work.catalogue.index
            ]
            ids = encode(tokenizer, (seen for seen, _ in known))
            counts[part] = write_rows(
                work.directory / f"{part}.parquet",
                CATALOGUE_EXAMPLES,
                (
                    {"input_ids": one.ids, "targets": [place], "weight": 1.0}
                    for one, (_, place) in zip(ids, known, strict=True)
                ),
            )
        asked = (query.row() for query in self.held_out(work))
        return {**counts, "holdout": write_rows(work.directory / "holdout.parquet", HOLDOUT, asked)}

    def held_out(self, work):
        rows = work.connection.execute(_STEPS).fetchall()
        return [
            HoldoutQuery(query_id=f"{place}", text=seen, relevant=[item], cluster=str(visit), weight=1.0)
            for place, (seen, item, part, visit) in enumerate(rows)
            if part == "holdout"
        ]

    def draft(self, seen):
        return Draft(need="visits of two events", found=seen.baskets, why="visits", metric="recall@5")


FACET = AgainExamples()
