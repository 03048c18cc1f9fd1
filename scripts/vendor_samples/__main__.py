"""Write small exports of a drawn shop in the shapes that vendors and public data sets document.

    python scripts/vendor_samples DIR

Makes DIR/ga4, DIR/snowplow, … which the mapping files in include/clickstreams/examples/ read with RESHELVE_DATA=DIR. Nothing in
them is anybody's data: the same three days of visits are told in each vendor's way, with what its real exports are known for.
The same call writes the same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import customer_data
import google
import matomo
import public
import shopify
import snowplow
from story import Visit, visits

_WRITERS = {
    "ga4": google.ga4,
    "snowplow": snowplow.enriched_tsv,
    "snowplow_json": snowplow.enriched_json,
    "segment": customer_data.segment,
    "rudderstack": customer_data.rudderstack,
    "matomo": matomo.live,
    "matomo_log": matomo.log_tables,
    "shopify_orders": shopify.orders,
    "shopify_pixels": shopify.pixels,
    "rees46": public.rees46,
    "retailrocket": public.retailrocket,
    "diginetica": public.diginetica,
    "otto": public.otto,
    "esci": public.esci,
}


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    directory: Path = parser.parse_args().directory
    drawn: list[Visit] = visits()
    for name, write in _WRITERS.items():
        (directory / name).mkdir(parents=True, exist_ok=True)
        write(directory / name, drawn)
        print(directory / name)


if __name__ == "__main__":
    main()
