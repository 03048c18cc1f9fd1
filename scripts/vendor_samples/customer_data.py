"""Segment and RudderStack: one JSON object a call, as their stores of raw events keep it. Both follow the e-commerce spec."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from story import Product, Visit, filled, write_json_lines


def segment(directory: Path, visits: list[Visit]) -> None:
    """Without a session: Segment knows none."""
    write_json_lines(directory / "events-0001.json.gz", (row for visit in visits for row in _calls(visit)))


def rudderstack(directory: Path, visits: list[Visit]) -> None:
    """With the session that its SDK tracks, in `context`, where somebody consented."""
    rows = []
    for visit in visits:
        for call in _calls(visit):
            session = {"sessionId": int(visit.start.timestamp() * 1000), "sessionStart": False}
            context = {**call["context"], **(session if visit.consent else {})}
            rows.append({**call, "channel": "web", "rudderId": call["messageId"][::-1], "context": context})
    write_json_lines(directory / "rudder-events-0001.json.gz", rows)


def _calls(visit: Visit) -> Iterator[dict[str, Any]]:
    listed = [_product(item, position=place) for place, item in enumerate(visit.shown, 1)]
    yield _call(visit, 0, "page", name="Search")
    yield _call(visit, 0, "track", "Products Searched", {"query": visit.query})
    yield _call(
        visit, 1, "track", "Product List Viewed", {"list_id": "search", "category": "", "products": listed}
    )
    yield _call(visit, 20, "track", "Product Clicked", listed[visit.clicked])
    yield _call(visit, 22, "track", "Product Viewed", _product(visit.product))
    if visit.bought:
        yield _call(
            visit, 60, "track", "Product Added", {**_product(visit.product, quantity=1), "cart_id": "c"}
        )
        bought = [_product(item, quantity=quantity) for item, quantity in visit.bought]
        order = {"order_id": f"T-{visit.number}", "currency": "USD", "total": 10.5, "products": bought}
        yield _call(visit, 200, "track", "Order Completed", order)
    if visit.user:
        yield _call(visit, 201, "identify", traits={"plan": "loyal"})


def _call(
    visit: Visit,
    second: int,
    kind: str,
    event: str = "",
    properties: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    searched = f"?q={quote_plus(visit.query)}" if second <= 20 else ""
    page = {
        "path": "/search",
        "search": searched,
        "url": f"https://shop.example/search{searched}",
        "title": "Shop",
    }
    name = event or kind
    return filled(
        {
            "type": kind,
            "event": event or None,
            "messageId": f"ajs-next-{visit.number:04d}-{second:03d}-{name.replace(' ', '')}",
            # Without consent the library of the shop keeps no id: a wrapper sends none.
            "anonymousId": f"anonymous-{visit.visitor}" if visit.consent else None,
            "userId": visit.user if visit.consent else None,
            "timestamp": _at(visit.at(second)),
            "originalTimestamp": _at(visit.at(second)),
            "sentAt": _at(visit.at(second + 1)),
            "receivedAt": _at(visit.at(second + 2)),
            "context": {
                "page": page,
                "locale": "en-US",
                "userAgent": "Mozilla/5.0",
                "library": {"name": "analytics.js"},
            },
            "properties": properties if kind == "track" else None,
            **more,
        }
    )


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.123Z"


def _product(item: Product, position: int | None = None, quantity: int | None = None) -> dict[str, Any]:
    named = {"product_id": item.sku, "sku": item.sku, "name": item.name, "category": item.category}
    return filled({**named, "price": float(item.price), "position": position, "quantity": quantity})
