"""Make the sample of searches: include/sample_data/searches.parquet and search_products.parquet, whose truth is known.

    python scripts/search_sample.py [--to include/sample_data] [--days 45] [--searches 400]

No public log of a shop's searches may be redistributed with its titles, so this is drawn, not observed. Products are titles of the
UCI sample. A shopper wants a product with a chance in proportion to its appeal, types one of the ways to ask for it, and clicks it.
So what was meant by a query is known: a product's chance is its appeal that day times the chance that it is asked for so.

- **repeats**: of each product's four ways to ask, the short ones are shared by many products and come again every day.
- **unseen**: one search in twelve is some two or three words of the title, in any order.
- **other words**: one in eight uses a word that no title has (_ALSO_CALLED): only clicks, or a reader of words, can tell.
- **misspelt**: one in ten has one wrong letter; the column `meant` holds what was meant. The mapping does not read it.
- **drift**: every product's appeal rises or falls a little each day, and one product in ten comes only half-way.
- one click in thirty is on any product at all.

With --best it prints the best MAP@5 that can be had on the last day, by that truth.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PROJECT = Path(__file__).parents[1]
LAST = datetime(2011, 8, 31)
PRODUCTS, VISITORS = 600, 4000
MISSPELT, UNSEEN, MISTAKEN = 0.10, 0.08, 1 / 30
_WAYS = np.array([0.30, 0.32, 0.24, 0.14])  # the last word; the last two; three; in other words
_SAY_NOTHING = {"and", "of", "in", "the", "with", "set", "for", "on", "pack", "assorted", "designs"}
_ALSO_CALLED = {
    "bag": "tote", "mug": "beaker", "lantern": "lamp", "christmas": "xmas", "holder": "stand", "light": "candle",
    "clock": "timepiece", "box": "case", "tin": "canister", "heart": "love", "vintage": "retro", "red": "scarlet",
    "pink": "rose", "card": "greeting", "frame": "picture", "jumbo": "huge", "kitchen": "cooking", "bunting": "flags",
    "wrap": "paper", "cushion": "pillow", "mirror": "glass", "sign": "plaque", "basket": "hamper", "plate": "dish",
}  # fmt: skip


@dataclass(frozen=True)
class Shop:
    """Products, the ways to ask for each with their chances, and the log of each one's appeal, day by day [days, products]."""

    ids: list[str]
    titles: list[str]
    words: list[list[str]]
    ways: list[dict[str, float]]
    appeal: np.ndarray


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", type=Path, default=PROJECT / "include/sample_data")
    parser.add_argument("--days", type=int, default=45)
    parser.add_argument("--searches", type=int, default=400, help="a day")
    parser.add_argument("--best", action="store_true", help="print the best MAP@5 that can be had")
    options = parser.parse_args()
    random = np.random.default_rng(20110718)
    shop = open_shop(options.days, random)
    searches = draw(shop, options.searches, random)
    products = pa.table({"product": shop.ids, "name": shop.titles})
    for table, name in ((searches, "searches"), (products, "search_products")):
        partial = options.to / f".{name}.partial"
        pq.write_table(table, partial, compression="zstd")
        partial.rename(options.to / f"{name}.parquet")
    if options.best:
        print(f"best MAP@5 on {LAST:%Y-%m-%d}: {best(shop, searches):.3f}")


def open_shop(days: int, random: np.random.Generator) -> Shop:
    """PRODUCTS titles of the UCI sample, with an appeal that drifts; -inf before a product is there."""
    table = pq.read_table(
        PROJECT / "include/sample_data/uci_online_retail.parquet", columns=["StockCode", "Description"]
    )
    named: dict[str, str] = {}  # title → product: no two products with one title
    for code, title in sorted(set(zip(*table.to_pydict().values(), strict=True)), key=str):
        text = (title or "").strip()
        if text.isupper() and len(_words(text)) > 2 and code not in named.values():
            named.setdefault(text, code)
    titles = sorted(named)
    titles = [titles[place] for place in sorted(random.choice(len(titles), PRODUCTS, replace=False))]
    words = [_words(title) for title in titles]
    begin, slope = random.normal(0, 1.2, PRODUCTS), random.normal(0, 0.05, PRODUCTS)
    appeal = begin + slope * np.arange(days)[:, np.newaxis]
    appeal[: days // 2, random.permutation(PRODUCTS)[: PRODUCTS // 10]] = -np.inf
    return Shop([named[title] for title in titles], titles, words, [_ways(each) for each in words], appeal)


def _words(title: str) -> list[str]:
    found = re.findall(r"[a-z]{3,}", title.lower())
    return [word for word in dict.fromkeys(found) if word not in _SAY_NOTHING]


def _ways(words: list[str]) -> dict[str, float]:
    """How a product is asked for, with the chance of each way."""
    other = [_ALSO_CALLED.get(word, word) for word in words[-2:]]
    texts = (words[-1:], words[-2:], words[-3:], other)
    found: dict[str, float] = defaultdict(float)
    for text, chance in zip(texts, _WAYS, strict=True):
        found[" ".join(text)] += float(chance)
    return dict(found)


def draw(shop: Shop, searches: int, random: np.random.Generator) -> pa.Table:
    """Rows of searches with the click that followed, in the order of time."""
    rows = []
    for day, appeal in enumerate(shop.appeal):
        chance = np.exp(appeal)
        midnight = LAST - timedelta(days=len(shop.appeal) - 1 - day)
        number = int(searches * random.normal(1, 0.04))
        seconds = np.sort(random.normal(15.5 * 3600, 3 * 3600, number).clip(0, 86_300))
        for second, wanted in zip(
            seconds, random.choice(PRODUCTS, number, p=chance / chance.sum()), strict=True
        ):
            meant = _asked(shop, int(wanted), random)
            there = np.flatnonzero(chance)
            clicked = int(random.choice(there)) if random.random() < MISTAKEN else int(wanted)
            visitor = (
                int(random.zipf(1.6)) % VISITORS if random.random() < 0.2 else int(random.integers(VISITORS))
            )
            rows.append(
                {
                    "time": midnight + timedelta(seconds=int(second)),
                    "visitor": f"v{visitor}",
                    "query": _misspelt(meant, random) if random.random() < MISSPELT else meant,
                    "meant": meant,
                    "product": shop.ids[clicked],
                }
            )
    return pa.Table.from_pylist(rows)


def _asked(shop: Shop, product: int, random: np.random.Generator) -> str:
    if random.random() < UNSEEN:
        words = shop.words[product]
        return " ".join(random.permutation(words)[: random.integers(2, 4)])
    ways = shop.ways[product]
    return str(random.choice(list(ways), p=list(ways.values())))


def _misspelt(text: str, random: np.random.Generator) -> str:
    """One letter left out, doubled, replaced, or changed with its neighbour; never the first of a word."""
    places = [place for place in range(1, len(text) - 1) if " " not in text[place - 1 : place + 2]]
    place = int(random.choice(places))
    before, letter, after = text[:place], text[place], text[place + 1 :]
    other = "etaoinsr"[random.integers(8)]
    return (
        before + [after, letter * 2 + after, other + after, after[0] + letter + after[1:]][random.integers(4)]
    )


def best(shop: Shop, searches: pa.Table) -> float:
    """MAP@5 of the order by appeal × chance of the query, over the last day's clicks; of unseen queries by the words they hold."""
    asked = [row for row in searches.to_pylist() if row["time"] >= LAST]
    appeal, found = np.exp(shop.appeal[-1]), []
    for row in asked:
        words = row["meant"].split()
        chances = np.array([ways.get(row["meant"], 0.0) * (1 - UNSEEN) for ways in shop.ways])
        holds = np.array([set(words) <= set(each) and len(words) in (2, 3) for each in shop.words])
        lengths = np.array([len(each) for each in shop.words], dtype=float)
        chances += holds * UNSEEN / 2 / lengths ** len(words)
        order = np.argsort(-chances * appeal, kind="stable")[:5]
        place = [shop.ids[product] for product in order]
        found.append(1 / (1 + place.index(row["product"])) if row["product"] in place else 0.0)
    return float(np.mean(found))


if __name__ == "__main__":
    main()
