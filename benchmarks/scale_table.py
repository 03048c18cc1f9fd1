"""The table of `bench_scale`: a line for each figure, a column for each size."""

from __future__ import annotations

from typing import Any

Row = tuple[str, str, str, str]  # label, step, figure, format

PRODUCTS: tuple[Row, ...] = (
    ("real titles", "catalogue", "real", ",d"),
    ("search: tables, CPU-s", "tables", "cpu_s", ",.1f"),
    ("search: tables, peak MB", "tables", "peak_mb", ",.0f"),
    ("search: tables on disk, MB", "tables", "disk_mb", ",.0f"),
    ("search: package, CPU-s", "package", "cpu_s", ",.1f"),
    ("search: package, peak MB", "package", "peak_mb", ",.0f"),
    ("search: saved_model.pb, MB", "package", "graph_mb", ",.0f"),
    ("search: whole version, MB", "package", "disk_mb", ",.0f"),
    ("search: load, CPU-s", "ask", "load_cpu_s", ",.1f"),
    ("search: peak of loading, MB", "ask", "load_peak_mb", ",.0f"),
    ("search: resident, MB", "ask", "resident_mb", ",.0f"),
    ("search: first request, ms", "ask", "first_ms", ",.0f"),
    ("search: tenth request, ms", "ask", "tenth_ms", ",.0f"),
    ("search: first request, CPU-ms", "ask", "first_cpu_ms", ",.0f"),
    ("search: tenth request, CPU-ms", "ask", "tenth_cpu_ms", ",.0f"),
    ("search: one query, p50 ms", "ask", "one_p50_ms", ",.1f"),
    ("search: one query, p99 ms", "ask", "one_p99_ms", ",.1f"),
    ("search: one query, CPU-ms", "ask", "one_cpu_ms", ",.1f"),
    ("search: one query, MB more", "ask", "one_mb", ",.1f"),
    ("search: 32 queries, p50 ms", "ask", "many_p50_ms", ",.0f"),
    ("search: 32 queries, CPU-ms", "ask", "many_cpu_ms", ",.0f"),
    ("search: 32 queries, MB more", "ask", "many_mb", ",.0f"),
    ("recall@10 of the exhaustive", "recall", "recall_10", ".4f"),
    ("recall@100 of the exhaustive", "recall", "recall_100", ".4f"),
    ("meant item in the first 10", "recall", "meant_10", ".3f"),
    ("exhaustive offline, CPU-s", "exhaustive", "cpu_s", ",.1f"),
    ("exhaustive offline, peak MB", "exhaustive", "peak_mb", ",.0f"),
    ("next_item: package, CPU-s", "next_item_package", "cpu_s", ",.1f"),
    ("next_item: package, peak MB", "next_item_package", "peak_mb", ",.0f"),
    ("next_item: saved_model.pb, MB", "next_item_package", "graph_mb", ",.0f"),
    ("next_item: whole version, MB", "next_item_package", "disk_mb", ",.0f"),
    ("next_item: load, CPU-s", "next_item_ask", "load_cpu_s", ",.1f"),
    ("next_item: resident, MB", "next_item_ask", "resident_mb", ",.0f"),
    ("next_item: first request, ms", "next_item_ask", "first_ms", ",.0f"),
    ("next_item: tenth request, ms", "next_item_ask", "tenth_ms", ",.0f"),
    ("next_item: first request, CPU-ms", "next_item_ask", "first_cpu_ms", ",.0f"),
    ("next_item: tenth request, CPU-ms", "next_item_ask", "tenth_cpu_ms", ",.0f"),
    ("next_item: one, p50 ms", "next_item_ask", "one_p50_ms", ",.1f"),
    ("next_item: one, p99 ms", "next_item_ask", "one_p99_ms", ",.1f"),
    ("next_item: one, CPU-ms", "next_item_ask", "one_cpu_ms", ",.1f"),
    ("next_item: 32, CPU-ms", "next_item_ask", "many_cpu_ms", ",.0f"),
    ("next_item: 32, MB more", "next_item_ask", "many_mb", ",.0f"),
)
EVENTS: tuple[Row, ...] = tuple(
    row
    for label, step in (
        ("examples, search", "search_examples"), ("examples, impressions", "impression_examples"),
        ("rates of impressions", "rates"), ("past searches, tables", "searches"),
    )
    for row in ((f"{label}, CPU-s", step, "cpu_s", ",.1f"), (f"{label}, peak MB", step, "peak_mb", ",.0f"))
)  # fmt: skip
RETRIEVERS: tuple[Row, ...] = (
    ("CPU-ms a query", "", "cpu_ms", ",.2f"), ("recall@10 of the exhaustive", "", "recall_10", ".3f"),
    ("recall@100 of the exhaustive", "", "recall_100", ".3f"), ("meant item in the first 10", "", "meant_10", ".3f"),
    ("recall@10 of FAISS flat", "", "flat_10", ".3f"), ("built in CPU-s", "", "build_cpu_s", ",.1f"),
)  # fmt: skip
_LABEL, _CELL = 44, 12


def show(found: dict[str, Any]) -> None:
    """One table; below it, why a figure is not there."""
    reasons: list[str] = []
    for kind, rows in (("sizes", PRODUCTS), ("events", EVENTS)):
        sizes = found.get(kind, {})
        if not sizes:
            continue
        print(
            f"{'products' if kind == 'sizes' else 'events':{_LABEL}}" + _cells(f"{int(n):,}" for n in sizes)
        )
        for label, step, figure, form in rows:
            cells = [_cell(of_size.get(step, {}), figure, form) for of_size in sizes.values()]
            if any(cells):
                print(f"{label:{_LABEL}}" + _cells(cells))
        if kind == "sizes":
            _show_retrieval(sizes)
        reasons += [
            f"{int(n):,} {'products' if kind == 'sizes' else kind}, {step}: {said.get('failed') or said['skipped']}"
            for n, of_size in sizes.items()
            for step, said in of_size.items()
            if said.keys() & {"failed", "skipped"}
        ]
    print(*reasons, sep="\n")


def _show_retrieval(sizes: dict[str, Any]) -> None:
    of_sizes = [of_size.get("retrieval", {}) for of_size in sizes.values()]
    names = dict.fromkeys(name for said in of_sizes for name in said.get("found", {}))
    for name in names:
        for label, _, figure, form in RETRIEVERS:
            cells = [_cell(said.get("found", {}).get(name, {}), figure, form) for said in of_sizes]
            if any(cells):
                print(f"{f'{name}: {label}':{_LABEL}}" + _cells(cells))
    if any("vectors" in said for said in of_sizes):
        print(f"{'vectors of titles':{_LABEL}}" + _cells(said.get("vectors", "") for said in of_sizes))
    for name, reason in {k: v for said in of_sizes for k, v in said.get("absent", {}).items()}.items():
        print(f"absent: {name} ({reason})")


def _cell(said: dict[str, Any], figure: str, form: str) -> str:
    if figure in said:
        return format(said[figure], form)
    return "failed" if "failed" in said else "skipped" if "skipped" in said else ""


def _cells(texts: Any) -> str:
    return "".join(f"{text:>{_CELL}}" for text in texts)
