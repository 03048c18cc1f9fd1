"""One clickstream event: the columns every source is mapped onto, and where partitions live on S3."""

from __future__ import annotations

from datetime import date

import pyarrow as pa

EVENT_SCHEMA = pa.schema(
    [
        pa.field("event_id", pa.string()),
        pa.field("event_time", pa.timestamp("us")),  # UTC
        pa.field("event_type", pa.string()),  # impression, click, cart, purchase, return, judgement
        pa.field("user_id", pa.string()),  # null where unknown
        pa.field("session_id", pa.string()),  # visit, basket or invoice
        pa.field("query", pa.string()),  # null where the event did not follow a search
        pa.field("item_id", pa.string()),
        pa.field("item_title", pa.string()),  # null where unknown
        pa.field("position", pa.int64()),  # 1-based shelf position, null where unknown
        pa.field("quantity", pa.int64()),  # null where it does not apply
        pa.field("price", pa.float64()),  # per unit, the shop's currency
        pa.field("grade", pa.float64()),  # of a judgement; null for all else
        pa.field("category", pa.string()),  # the item's, null where unknown
        pa.field("segment", pa.string()),  # the customer's group (country, device), null where unknown
    ]
)


def landed_prefix(source: str, partition: date) -> str:
    """Where a source's raw partition lands: Parquet files in EVENT_SCHEMA's columns."""
    return f"clickstream/{source}/dt={partition.isoformat()}/"


def validated_prefix(source: str, partition: date) -> str:
    """Where its verdict, good rows and quarantined rows are written.

    `verdict.json` (written last), `good.parquet`, `quarantine.parquet`, `report.html`.
    """
    return f"validated/{source}/dt={partition.isoformat()}/"


def catalogue_key(source: str) -> str:
    """The optional product list of a source: Parquet with item_id, title."""
    return f"catalogue/{source}/products.parquet"
