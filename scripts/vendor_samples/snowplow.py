"""Snowplow: enriched events with the e-commerce plug-in's entities, as TSV of 131 columns, and as the JSON of its loaders and SDKs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus
from uuid import NAMESPACE_URL, uuid5

from story import Product, Visit, filled, write_json_lines, write_lines

_ECOMMERCE = "iglu:com.snowplowanalytics.snowplow.ecommerce"
_NAMES = """app_id platform etl_tstamp collector_tstamp dvce_created_tstamp event event_id txn_id name_tracker v_tracker
v_collector v_etl user_id user_ipaddress user_fingerprint domain_userid domain_sessionidx network_userid geo_country geo_region
geo_city geo_zipcode geo_latitude geo_longitude geo_region_name ip_isp ip_organization ip_domain ip_netspeed page_url page_title
page_referrer page_urlscheme page_urlhost page_urlport page_urlpath page_urlquery page_urlfragment refr_urlscheme refr_urlhost
refr_urlport refr_urlpath refr_urlquery refr_urlfragment refr_medium refr_source refr_term mkt_medium mkt_source mkt_term
mkt_content mkt_campaign contexts se_category se_action se_label se_property se_value unstruct_event tr_orderid tr_affiliation
tr_total tr_tax tr_shipping tr_city tr_state tr_country ti_orderid ti_sku ti_name ti_category ti_price ti_quantity pp_xoffset_min
pp_xoffset_max pp_yoffset_min pp_yoffset_max useragent br_name br_family br_version br_type br_renderengine br_lang
br_features_pdf br_features_flash br_features_java br_features_director br_features_quicktime br_features_realplayer
br_features_windowsmedia br_features_gears br_features_silverlight br_cookies br_colordepth br_viewwidth br_viewheight os_name
os_family os_manufacturer os_timezone dvce_type dvce_ismobile dvce_screenwidth dvce_screenheight doc_charset doc_width doc_height
tr_currency tr_total_base tr_tax_base tr_shipping_base ti_currency ti_price_base base_currency geo_timezone mkt_clickid
mkt_network etl_tags dvce_sent_tstamp refr_domain_userid refr_dvce_tstamp derived_contexts domain_sessionid derived_tstamp
event_vendor event_name event_format event_version event_fingerprint true_tstamp"""
_COLUMNS = _NAMES.split()


def enriched_tsv(directory: Path, visits: list[Visit]) -> None:
    """One file of tab-separated lines without a header (gzip)."""
    write_lines(directory / "enriched-0001.tsv.gz", (_line(event) for event in _events(visits)))


def enriched_json(directory: Path, visits: list[Visit]) -> None:
    """One object a line: an entity is a key of its own, with its vendor, its name and the version of its schema."""
    write_json_lines(directory / "enriched-0001.json.gz", (_shredded(event) for event in _events(visits)))


def _line(event: dict[str, Any]) -> str:
    wrapped = dict(event)
    if event["action"]:
        action = {
            "schema": f"{_ECOMMERCE}/snowplow_ecommerce_action/jsonschema/1-0-2",
            "data": event["action"],
        }
        wrapped["unstruct_event"] = _self_describing("unstruct_event", action)
    entities = [
        {"schema": f"{_ECOMMERCE}/{name}/jsonschema/1-0-0", "data": entity}
        for name in ("product", "transaction") for entity in event[name]
    ]  # fmt: skip
    wrapped["contexts"] = _self_describing("contexts", entities) if entities else None
    return "\t".join("" if wrapped.get(name) is None else str(wrapped[name]) for name in _COLUMNS)


def _self_describing(name: str, data: Any) -> str:
    schema = f"iglu:com.snowplowanalytics.snowplow/{name}/jsonschema/1-0-0"
    return json.dumps({"schema": schema, "data": data}, separators=(",", ":"))


def _shredded(event: dict[str, Any]) -> dict[str, Any]:
    plain = {name: event.get(name) for name in _COLUMNS}
    for name in ("etl_tstamp", "collector_tstamp", "dvce_created_tstamp", "derived_tstamp"):
        plain[name] = str(event[name]).replace(" ", "T") + "Z"
    vendor = "com_snowplowanalytics_snowplow_ecommerce"
    plain[f"unstruct_event_{vendor}_snowplow_ecommerce_action_1"] = event["action"]
    for name in ("product", "transaction"):
        plain[f"contexts_{vendor}_{name}_1"] = event[name]
    return filled(plain)


def _events(visits: Sequence[Visit]) -> Iterator[dict[str, Any]]:
    for visit in visits:
        found = f"q={quote_plus(visit.query)}&page=1"
        listed = [_product(item, position=place) for place, item in enumerate(visit.shown, 1)]
        yield _event(visit, 0, "page_view", found)
        yield _event(visit, 1, "list_view", found, listed, listing="Search results")
        yield _event(visit, 20, "list_click", found, [listed[visit.clicked]], listing="Search results")
        yield _event(visit, 22, "product_view", "", [_product(visit.product)])
        if visit.bought:
            yield _event(visit, 60, "add_to_cart", "", [_product(visit.product, quantity=1)])
            bought = [_product(item, quantity=quantity) for item, quantity in visit.bought]
            yield _event(visit, 200, "transaction", "", bought, order=f"T-{visit.number}")


def _event(
    visit: Visit, second: int, kind: str, searched: str, products: Sequence[dict[str, Any]] = (), *,
    listing: str | None = None, order: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    at, known = visit.at(second), visit.consent
    seen, got = (f"{moment:%Y-%m-%d %H:%M:%S}.{visit.number:03d}" for moment in (at, visit.at(second + 2)))
    is_page = kind == "page_view"
    return {
        "app_id": "shop", "platform": "web", "etl_tstamp": got, "collector_tstamp": got, "dvce_created_tstamp": seen,
        "event": "page_view" if is_page else "unstruct",
        "event_id": str(uuid5(NAMESPACE_URL, f"{visit.number}/{kind}")), "v_tracker": "js-3.24.0",
        "v_collector": "ssc-3.1.0-kinesis", "v_etl": "snowplow-enrich-kinesis-4.2.0",
        "user_id": visit.user if known else None,
        # Tracked anonymously: no cookie, no session, and the collector's id is all zeros.
        "domain_userid": str(uuid5(NAMESPACE_URL, f"user-{visit.visitor}")) if known else None,
        "domain_sessionid": str(uuid5(NAMESPACE_URL, f"session-{visit.number}")) if known else None,
        "domain_sessionidx": 1 if known else None,
        "network_userid": str(uuid5(NAMESPACE_URL, f"net-{visit.visitor}" if known else "")) if known
        else "00000000-0000-0000-0000-000000000000",
        "page_url": f"https://shop.example/search?{searched}" if searched else "https://shop.example/product",
        "page_urlscheme": "https", "page_urlhost": "shop.example", "page_urlport": 443,
        "page_urlpath": "/search" if searched else "/product", "page_urlquery": searched or None,
        "useragent": "Mozilla/5.0", "dvce_type": "Mobile" if visit.visitor % 2 else "Computer", "geo_country": "US",
        "os_timezone": "America/Los_Angeles", "derived_tstamp": seen,
        "event_vendor": "com.snowplowanalytics.snowplow" + ("" if is_page else ".ecommerce"),
        "event_name": "page_view" if is_page else "snowplow_ecommerce_action", "event_format": "jsonschema",
        "event_version": "1-0-0" if is_page else "1-0-2",
        "action": None if is_page else filled({"type": kind, "name": listing}),
        "product": list(products),
        "transaction": [{"transaction_id": order, "revenue": 10.5, "currency": "USD", "payment_method": "card"}] if order else [],
    }  # fmt: skip


def _product(item: Product, position: int | None = None, quantity: int | None = None) -> dict[str, Any]:
    described = {"id": item.sku, "name": item.name, "category": item.category, "price": float(item.price)}
    return filled({**described, "currency": "USD", "position": position, "quantity": quantity})
