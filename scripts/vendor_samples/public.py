"""The layouts of five public data sets: Rees46, Retailrocket, Diginetica, OTTO and ESCI. Their rows are ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from story import SHOWN, Visit, products, write_csv, write_json_lines


def rees46(directory: Path, visits: list[Visit]) -> None:
    """2024-Mar.csv.gz: one row an event; times end in UTC."""
    rows = []
    for visit in visits:
        steps = [(20, "view", visit.product)]
        if visit.bought:
            steps += [(60, "cart", visit.product), (70, "remove_from_cart", visit.shown[0])]
            steps += [(200, "purchase", item) for item, _ in visit.bought]
        rows += [
            {
                "event_time": f"{visit.at(second):%Y-%m-%d %H:%M:%S} UTC", "event_type": kind, "product_id": item.number,
                "category_id": "2053013555631882655", "category_code": item.category.lower().replace("/", ".") if item.number % 5 else "",
                "brand": "oak" if item.number % 2 else "", "price": item.price, "user_id": 500_000 + visit.visitor,
                "user_session": f"00000000-0000-0000-0000-{visit.number:012d}",
            }
            for second, kind, item in steps
        ]  # fmt: skip
    write_csv(directory / "2024-Mar.csv.gz", rows)


def retailrocket(directory: Path, visits: list[Visit]) -> None:
    """events.csv: milliseconds, no session, and what an item is hidden behind numbers."""
    rows: list[dict[str, Any]] = []
    for visit in visits:
        steps = [(20, "view", visit.product, "")]
        if visit.bought:
            steps += [(60, "addtocart", visit.product, "")]
            steps += [(200, "transaction", item, str(visit.number)) for item, _ in visit.bought]
        rows += [
            {
                "timestamp": int(visit.at(second).timestamp() * 1000), "visitorid": visit.visitor, "event": kind,
                "itemid": item.number, "transactionid": order,
            }
            for second, kind, item, order in steps
        ]  # fmt: skip
    write_csv(directory / "events.csv", rows)


def diginetica(directory: Path, visits: list[Visit]) -> None:
    """train-*.csv and products.csv: semicolons, words as numbers, times as a day and the milliseconds of a session."""
    queries, clicks, purchases = [], [], []
    for visit in visits:
        words = ",".join(str(10_000 + sum(map(ord, word))) for word in visit.query.split())
        day, user = f"{visit.start:%Y-%m-%d}", visit.visitor if visit.user else "NA"
        session = {"queryId": 70_000 + visit.number, "sessionId": 900 + visit.number, "userId": user}
        # The data set tells when in the session, not when in the day.
        queries.append(
            {
                **session, "timeframe": 1000, "duration": 310, "eventdate": day, "searchstring.tokens": words, "categoryId": 0,
                "items": ",".join(str(item.number) for item in visit.shown), "is.test": "FALSE",
            }
        )  # fmt: skip
        clicks.append({"queryId": session["queryId"], "timeframe": 20_000, "itemId": visit.product.number})
        purchases += [
            {
                "sessionId": session["sessionId"], "userId": user, "timeframe": 200_000 + place, "eventdate": day,
                "ordernumber": visit.number, "itemId": item.number,
            }
            for place, (item, _) in enumerate(visit.bought)
        ]  # fmt: skip
    listed = [
        {
            "itemId": item.number,
            "pricelog2": 9,
            "product.name.tokens": ",".join(str(sum(map(ord, word))) for word in item.name.split()),
        }
        for item in products()
    ]
    for name, rows in (
        ("train-queries", queries),
        ("train-clicks", clicks),
        ("train-purchases", purchases),
        ("products", listed),
    ):
        write_csv(directory / f"{name}.csv", rows, delimiter=";")


def otto(directory: Path, visits: list[Visit]) -> None:
    """train.jsonl: a session a line, its events in a list."""
    rows = []
    for visit in visits:
        steps = [(1 + place, "clicks", item) for place, item in enumerate(visit.shown[: 1 + visit.clicked])]
        if visit.bought:
            steps += [(60, "carts", visit.product), *((200, "orders", item) for item, _ in visit.bought)]
        events = [
            {"aid": item.number, "ts": int(visit.at(second).timestamp() * 1000), "type": kind}
            for second, kind, item in steps
        ]
        rows.append({"session": visit.number, "events": events})
    write_json_lines(directory / "train.jsonl", rows)


def esci(directory: Path, visits: list[Visit]) -> None:
    """shopping_queries_dataset_examples.parquet and …_products.parquet: judged pairs in several languages; an id is of a language."""
    examples, seen = [], sorted({visit.query for visit in visits})
    for number, query in enumerate(seen):
        for place, item in enumerate((products() + products())[number : number + SHOWN]):
            examples += [
                {
                    "example_id": len(examples), "query": query, "query_id": number, "product_id": f"B0{item.number}",
                    "product_locale": locale, "esci_label": "ESCI"[place % 4], "small_version": 1, "large_version": 1, "split": "train",
                }
                for locale in ("us", "es")
            ]  # fmt: skip
    listed = [
        {
            "product_id": f"B0{item.number}", "product_title": item.name if locale == "us" else f"{item.name} (es)",
            "product_description": None, "product_bullet_point": None, "product_brand": "Oak", "product_color": None,
            "product_locale": locale,
        }
        for item in products() for locale in ("us", "es")
    ]  # fmt: skip
    for name, rows in (("examples", examples), ("products", listed)):
        pq.write_table(pa.Table.from_pylist(rows), directory / f"shopping_queries_dataset_{name}.parquet")
