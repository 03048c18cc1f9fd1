"""Google Analytics 4: a day's table of the BigQuery export, extracted as JSON (gzip).

As it really is: `event_date` by the property's clocks and `event_timestamp` in UTC; integers as texts; keys without a value left
out; `(not set)` where GA4 has nothing; lists counted from 0; neither user nor session of who gave no consent.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from story import DAYS, Product, Visit, filled, write_json_lines

_NOT_SET = "(not set)"


def ga4(directory: Path, visits: list[Visit]) -> None:
    """events_YYYYMMDD.json.gz, one a day."""
    for day in DAYS:
        rows = [row for visit in visits if visit.day == day for row in _events(visit)]
        write_json_lines(directory / f"events_{day:%Y%m%d}.json.gz", rows)


def _events(visit: Visit) -> Iterator[dict[str, Any]]:
    place = f"https://shop.example/search?q={quote_plus(visit.query)}&page=1"
    listed = [_item(item, index=index) for index, item in enumerate(visit.shown)]
    clicked = [listed[visit.clicked]]
    yield _event(visit, 0, "session_start", place)
    yield _event(visit, 0, "view_search_results", place, term=visit.query)
    yield _event(visit, 1, "view_item_list", place, listed)
    yield _event(visit, 20, "select_item", place, clicked)
    yield _event(visit, 22, "view_item", "https://shop.example/product", [_item(visit.product)])
    if visit.bought:
        bought = [_item(item, quantity=quantity) for item, quantity in visit.bought]
        yield _event(
            visit, 60, "add_to_cart", "https://shop.example/product", [_item(visit.product, quantity=1)]
        )
        yield _event(visit, 200, "purchase", "https://shop.example/thanks", bought, order=f"T-{visit.number}")


def _event(
    visit: Visit, second: int, name: str, place: str, items: list[dict[str, Any]] | None = None,
    term: str | None = None, order: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    micros = int(visit.at(second).timestamp() * 1_000_000) + visit.number
    session = {"int_value": str(int(visit.start.timestamp()))} if visit.consent else None
    # A search for a number is a number to GA4.
    said = {"int_value" if term and term.isdigit() else "string_value": term} if term else None
    params = {"page_location": {"string_value": place}, "ga_session_id": session, "search_term": said}
    return filled(
        {
            "event_date": f"{visit.day:%Y%m%d}",
            "event_timestamp": str(micros),
            "event_name": name,
            "event_params": [{"key": key, "value": value} for key, value in params.items() if value],
            "event_bundle_sequence_id": str(visit.number),
            "privacy_info": {
                "analytics_storage": "Yes" if visit.consent else "No",
                "uses_transient_token": "No",
            },
            "user_id": visit.user if visit.consent else None,
            "user_pseudo_id": f"{1_000_000 + visit.visitor}.{1_700_000_000 + visit.visitor}"
            if visit.consent
            else None,
            "device": {"category": "mobile" if visit.visitor % 2 else "desktop"},
            "geo": {"country": "United States"},
            "platform": "WEB",
            "ecommerce": {"transaction_id": order or _NOT_SET, "unique_items": str(len(items or []))}
            if items
            else None,
            "items": items,
        }
    )


def _item(item: Product, index: int | None = None, quantity: int | None = None) -> dict[str, Any]:
    return filled(
        {
            "item_id": item.sku,
            "item_name": item.name,
            "item_brand": _NOT_SET,
            "item_category": item.category if item.number % 4 else _NOT_SET,
            "price": float(item.price),
            "quantity": None if quantity is None else str(quantity),
            "item_list_name": _NOT_SET if index is None else "Search results",
            "item_list_index": _NOT_SET if index is None else str(index),
        }
    )
