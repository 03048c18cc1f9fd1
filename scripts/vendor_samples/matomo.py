"""Matomo: visits with their actions, as `Live.getLastVisitsDetails` tells them, and rows of its log tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from story import DAYS, Product, Visit, write_lines


def live(directory: Path, visits: list[Visit]) -> None:
    """A list of visits a day, as the reporting API answers with format=JSON."""
    for day in DAYS:
        told = [_visit(visit) for visit in visits if visit.day == day]
        write_lines(directory / f"visits-{day}.json", [json.dumps(told)])


def _visit(visit: Visit) -> dict[str, Any]:
    return {
        "idSite": 1,
        "idVisit": 5000 + visit.number,
        "visitIp": "203.0.113.0",
        "visitorId": f"{0xA0B1C2D3E4F50000 + visit.visitor:016x}",
        "userId": visit.user,
        "serverDate": str(visit.day),
        "serverTimestamp": int(visit.at(200).timestamp()),
        "deviceType": "Smartphone" if visit.visitor % 2 else "Desktop",
        "countryCode": "us",
        "actionDetails": _actions(visit),
    }


def _actions(visit: Visit) -> list[dict[str, Any]]:
    page = {"url": "https://shop.example/", "pageIdAction": "7", "idpageview": f"p{visit.number:05d}"}
    viewed = visit.product
    made = [
        {"type": "action", **page, "pageTitle": "Shop", "timestamp": _at(visit, 0)},
        {
            "type": "search", **page, "url": None, "pageTitle": visit.query, "siteSearchKeyword": visit.query,
            "siteSearchCategory": None, "siteSearchCount": "6", "timestamp": _at(visit, 1),
        },
        {
            "type": "action", **page, "pageTitle": viewed.name, "timestamp": _at(visit, 20),
            "productViewName": viewed.name, "productViewSku": viewed.sku, "productViewPrice": float(viewed.price),
            "productViewCategories": [viewed.category],
        },
        {"type": "event", **page, "eventCategory": "Media", "eventAction": "play", "timestamp": _at(visit, 30)},
    ]  # fmt: skip
    if visit.bought:
        items = [_item(item, quantity) for item, quantity in visit.bought]
        first = [_item(viewed, 1)]
        made += [
            {"type": "ecommerceAbandonedCart", "revenue": 1, "items": 1, "itemDetails": first, "timestamp": _at(visit, 60)},
            {
                "type": "ecommerceOrder", "orderId": f"T-{visit.number}", "revenue": 10.5, "items": len(items),
                "itemDetails": items, "timestamp": _at(visit, 200),
            },
        ]  # fmt: skip
    return made


def _at(visit: Visit, second: int) -> int:
    return int(visit.at(second).timestamp())


def _item(item: Product, quantity: int) -> dict[str, Any]:
    named = {
        "itemSKU": item.sku,
        "itemName": item.name,
        "itemCategory": item.category,
        "categories": [item.category],
    }
    return {**named, "price": float(item.price), "quantity": quantity}


_NAMES = "kind id idvisitor idvisit user_id server_time sku product category price quantity keyword idorder"
_COLUMNS = _NAMES.split()


def log_tables(directory: Path, visits: list[Visit]) -> None:
    """What `mysql --batch` prints of the query in the mapping's comment: tabs, and the word NULL."""
    rows: list[dict[str, Any]] = []
    for visit in visits:
        who = {
            "idvisitor": f"{0xA0B1C2D3E4F50000 + visit.visitor:016X}", "idvisit": 5000 + visit.number, "user_id": visit.user,
        }  # fmt: skip
        searched = {
            "kind": "search",
            "id": 3 * visit.number,
            "keyword": visit.query,
            "server_time": _server_time(visit, 1),
        }
        viewed = {"kind": "view", "id": 3 * visit.number + 1, "server_time": _server_time(visit, 20)}
        rows += [who | searched, who | viewed | _logged(visit.product)]
        for item, quantity in visit.bought:
            order = {"kind": "order", "idorder": f"T-{visit.number}", "quantity": quantity}
            rows.append(who | order | {"server_time": _server_time(visit, 200)} | _logged(item))
    lines = [
        "\t".join("NULL" if row.get(name) is None else str(row[name]) for name in _COLUMNS) for row in rows
    ]
    write_lines(directory / "actions-0001.tsv", ["\t".join(_COLUMNS), *lines])


def _server_time(visit: Visit, second: int) -> str:
    return f"{visit.at(second):%Y-%m-%d %H:%M:%S}"  # UTC, as Matomo stores it


def _logged(item: Product) -> dict[str, Any]:
    return {"sku": item.sku, "product": item.name, "category": item.category, "price": item.price}
