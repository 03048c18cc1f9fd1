"""Make include/sample_data/ads.parquet: drawn impressions and clicks of ads, whose click probabilities are known.

    python scripts/ads_sample.py [--file include/sample_data/ads.parquet] [--days 12] [--lists 250]

No public data of ads with text, positions and clicks may be redistributed, so this is drawn, not observed. Ads are titles
of the UCI sample; a query is one or two words of a title; five ads are shown, the likeliest first, as an ad server would. An
ad is clicked with the probability that its place is looked at (_LOOKED_AT) times that of a click once seen:
logistic(-2.6 + 2·words in common + appeal), the appeal of an ad being drawn once (Richardson et al., Predicting Clicks, 2007;
the position model of Craswell et al., 2008). One click in ten comes hours late.
"""

from __future__ import annotations

import argparse
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PROJECT = Path(__file__).parents[1]
FIRST = datetime(2011, 8, 20)
ADS, SHOWN = 120, 5
_LOOKED_AT = np.array([1.0, 0.75, 0.55, 0.4, 0.3])
_OTHER_WORDS = {"and", "of", "in", "the", "with", "set", "for", "on"}


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", type=Path, default=PROJECT / "include/sample_data/ads.parquet")
    parser.add_argument("--days", type=int, default=12)
    parser.add_argument("--lists", type=int, default=250, help="lists shown a day")
    options = parser.parse_args()
    partial = options.file.with_name(f".{options.file.name}.partial")
    pq.write_table(draw(titles(), options.days, options.lists), partial, compression="zstd")
    partial.rename(options.file)


def titles() -> list[str]:
    """ADS titles of the UCI sample, in the order of their letters."""
    column = pq.read_table(PROJECT / "include/sample_data/uci_online_retail.parquet")["Description"]
    known = sorted(
        {text.strip() for text in column.to_pylist() if text and len(text.split()) > 2 and text.isupper()}
    )
    return known[:: max(1, len(known) // ADS)][:ADS]


def words(text: str) -> set[str]:
    """Of a title or query, without those that say nothing."""
    return set(text.lower().split()) - _OTHER_WORDS


def draw(ads: list[str], days: int, lists: int) -> pa.Table:
    """Rows of impressions and clicks, in the order of time."""
    random = np.random.default_rng(20110820)
    appeal = random.normal(0, 1, len(ads))
    of_ads = [words(ad) for ad in ads]
    rows = []
    for number in range(days * lists):
        at = FIRST + timedelta(days=number // lists, seconds=int(number % lists * 86_000 / lists))
        about = int(random.integers(len(ads)))
        query = " ".join(random.permutation(sorted(of_ads[about]))[: random.integers(1, 3)])
        asked = words(query)
        common = np.array([len(asked & own) / len(asked) for own in of_ads])
        shown = np.argsort(-(common + random.normal(0, 0.35, len(ads))), kind="stable")[:SHOWN]
        clicked = 1 / (1 + np.exp(2.6 - 2 * common[shown] - appeal[shown])) * _LOOKED_AT > random.random(
            SHOWN
        )
        for place, ad in enumerate(shown):
            row = {
                "visit": f"v{number}",
                "query": query,
                "ad": f"ad{ad:03d}",
                "text": ads[ad],
                "place": place + 1,
            }
            rows.append({"time": at, "event": "impression", **row})
            if clicked[place]:
                wait = random.integers(5, 900) if random.random() > 0.1 else random.integers(7_200, 36_000)
                rows.append({"time": at + timedelta(seconds=int(wait)), "event": "click", **row})
    end = FIRST + timedelta(days=days)
    return pa.Table.from_pylist(
        sorted((row for row in rows if row["time"] < end), key=lambda row: row["time"])
    )


if __name__ == "__main__":
    main()
