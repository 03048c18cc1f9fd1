"""Shopify: the CSV exports of orders and products, and customer events as a custom pixel sends them on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from story import ZONE, Product, Visit, products, write_csv, write_json_lines

_ORDER = """Name|Email|Financial Status|Paid at|Fulfillment Status|Fulfilled at|Accepts Marketing|Currency|Subtotal|Shipping|Taxes|Total
|Discount Code|Discount Amount|Shipping Method|Created at|Lineitem quantity|Lineitem name|Lineitem price|Lineitem compare at price
|Lineitem sku|Lineitem requires shipping|Lineitem taxable|Lineitem fulfillment status|Billing Name|Billing Street|Billing Zip
|Billing Country|Shipping Name|Shipping Country|Notes|Note Attributes|Cancelled at|Payment Method|Payment Reference|Refunded Amount|Vendor
|Outstanding Balance|Employee|Location|Device ID|Id|Tags|Risk Level|Source|Lineitem discount|Phone""".replace(
    "\n", ""
).split("|")
_PRODUCT = """Handle|Title|Body (HTML)|Vendor|Product Category|Type|Tags|Published|Option1 Name|Option1 Value|Variant SKU|Variant Grams
|Variant Inventory Qty|Variant Price|Variant Barcode|Image Src|Image Position|Status""".replace(
    "\n", ""
).split("|")


def orders(directory: Path, visits: list[Visit]) -> None:
    """orders_export.csv: what is said of an order stands in its first row alone; products_export.csv, a row a variant or image."""
    rows: list[dict[str, Any]] = []
    for visit in visits:
        for place, (item, quantity) in enumerate(visit.bought):
            line = {
                "Name": f"#{1001 + visit.number}", "Lineitem quantity": quantity, "Lineitem name": f"{item.name} - Default",
                "Lineitem price": item.price, "Lineitem sku": item.sku, "Lineitem requires shipping": "true",
                "Lineitem taxable": "true", "Lineitem fulfillment status": "pending", "Vendor": "Shop", "Lineitem discount": "0.00",
            }  # fmt: skip
            rows.append(dict.fromkeys(_ORDER, "") | ({} if place else _of_order(visit)) | line)
        if visit.bought and visit.number % 9 == 0:  # a tip is a line without an item
            tip = {
                "Name": f"#{1001 + visit.number}",
                "Lineitem quantity": 1,
                "Lineitem name": "Tip",
                "Lineitem price": "2.00",
            }
            rows.append(dict.fromkeys(_ORDER, "") | tip)
    write_csv(directory / "orders_export.csv", rows)
    write_csv(directory / "products_export.csv", [row for item in products() for row in _of_product(item)])


def _of_order(visit: Visit) -> dict[str, Any]:
    created = _local(visit.at(200))
    return {
        "Email": f"Customer{visit.visitor}@Shop.Example", "Financial Status": "paid", "Paid at": created,
        "Fulfillment Status": "unfulfilled", "Accepts Marketing": "no", "Currency": "USD", "Subtotal": "10.50", "Shipping": "0.00",
        "Taxes": "0.00", "Total": "10.50", "Discount Amount": "0.00", "Shipping Method": "Standard", "Created at": created,
        "Billing Name": "A Customer", "Billing Country": "US", "Shipping Country": "US", "Notes": 'Ring, then wait.\n"Thanks"',
        "Payment Method": "Shopify Payments", "Refunded Amount": "0.00", "Outstanding Balance": "0.00",
        "Id": str(5_550_000_000 + visit.number), "Risk Level": "Low", "Source": "web",
    }  # fmt: skip


def _local(moment: datetime) -> str:
    return f"{moment.astimezone(ZONE):%Y-%m-%d %H:%M:%S %z}"


def _of_product(item: Product) -> Iterator[dict[str, Any]]:
    handle, blank = item.name.lower().replace(" ", "-").replace(",", ""), dict.fromkeys(_PRODUCT, "")
    variant = {
        "Handle": handle,
        "Variant Price": item.price,
        "Variant Grams": "500",
        "Variant Inventory Qty": "7",
    }
    told = {
        "Title": item.name, "Body (HTML)": f"<p>{item.name},\n<b>made well</b></p>", "Vendor": "Shop", "Type": item.category,
        "Published": "true", "Option1 Name": "Size", "Option1 Value": "Small", "Variant SKU": f"'{item.sku}",
        "Image Src": "https://cdn.example/1.png", "Image Position": "1", "Status": "active",
    }  # fmt: skip
    yield blank | variant | told
    yield blank | variant | {"Option1 Value": "Large", "Variant SKU": f"{item.sku}-L"}
    yield blank | {"Handle": handle, "Image Src": "https://cdn.example/2.png", "Image Position": "2"}


def pixels(directory: Path, visits: list[Visit]) -> None:
    """events.jsonl.gz: the events of the web pixels API, one a line. Shopify sends none of who did not agree."""
    write_json_lines(
        directory / "events.jsonl.gz", (row for visit in visits if visit.consent for row in _events(visit))
    )


def _events(visit: Visit) -> Iterator[dict[str, Any]]:
    searched = f"/search?q={quote_plus(visit.query)}&type=product"
    result = {"query": visit.query, "productVariants": [_variant(item) for item in visit.shown]}
    yield _event(visit, 0, "page_viewed", {}, searched)
    yield _event(visit, 1, "search_submitted", {"searchResult": result}, searched)
    yield _event(
        visit, 20, "product_viewed", {"productVariant": _variant(visit.product)}, "/products/x", searched
    )
    if visit.bought:
        line = {
            "cost": {"totalAmount": {"amount": 1, "currencyCode": "USD"}},
            "merchandise": _variant(visit.product),
            "quantity": 1,
        }
        yield _event(visit, 60, "product_added_to_cart", {"cartLine": line}, "/products/x", searched)
        lines = [
            {"id": f"l{place}", "quantity": quantity, "title": item.name, "variant": _variant(item)}
            for place, (item, quantity) in enumerate(visit.bought)
        ]
        order = {
            "token": f"t{visit.number}",
            "order": {"id": str(5_550_000_000 + visit.number)},
            "lineItems": lines,
        }
        yield _event(visit, 200, "checkout_completed", {"checkout": order}, "/checkouts/x")


def _event(
    visit: Visit, second: int, name: str, data: dict[str, Any], path: str, before: str = ""
) -> dict[str, Any]:
    path, _, search = path.partition("?")
    place = {
        "href": f"https://shop.example{path}",
        "pathname": path,
        "search": f"?{search}" if search else "",
    }
    document = {
        "location": place,
        "referrer": f"https://shop.example{before}" if before else "",
        "title": "Shop",
    }
    return {
        "id": f"sh-{visit.number:08x}-{second:04d}-{name}", "name": name, "type": "standard", "seq": second,
        "clientId": f"client-{visit.visitor}", "timestamp": f"{visit.at(second):%Y-%m-%dT%H:%M:%S}.456Z",
        "context": {"document": document, "navigator": {"language": "en-US"}}, "data": data,
    }  # fmt: skip


def _variant(item: Product) -> dict[str, Any]:
    product = {
        "id": str(8_000_000 + item.number),
        "title": item.name,
        "type": item.category,
        "vendor": "Shop",
        "url": "/products/x",
    }
    price = {"amount": float(item.price), "currencyCode": "USD"}
    return {
        "id": str(4_000_000 + item.number),
        "sku": item.sku,
        "title": "Default Title",
        "price": price,
        "product": product,
    }
