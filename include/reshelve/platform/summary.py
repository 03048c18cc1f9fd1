"""The end of a night, for a person: what was checked, learned, judged and released, and one real answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.table import Table

from reshelve.clickstream.events import validated_prefix
from reshelve.deployments.deployment_log import read_pointer
from reshelve.errors import ReshelveError
from reshelve.examples.common_queries import common_queries
from reshelve.examples.queries import normalised
from reshelve.kind_registry import kind_of, stages_of
from reshelve.lineage.run import Run
from reshelve.notation import plain
from reshelve.platform.configuration import Machine
from reshelve.protocol.reports import live_reports

Rows = Iterator[tuple[str, str]]


def print_summary(run: Run, here: Machine, seconds: float, following: str) -> None:
    """Print the summary on stdout; `following` is the command of the night after it."""
    console = Console(highlight=False, soft_wrap=True)
    console.rule(f"{run.ranker.title}: the night of {run.partition.isoformat()}", align="left")
    _print(console, [*_data(run), *_model(run), *_verdict(run), *_serving(run), *_times(run, seconds)])
    answer = _answer(run)
    if answer:
        request, result = answer
        console.print(f"\nRequest for [bold]{run.ranker.name}[/]: {request}")
        for place, item in enumerate(result["items"], 1):
            console.print(f"  {place}. {item['score']:.4f}  {item['item']:<12} {item['title']}", markup=False)
    console.print("")
    _print(console, _addresses(here, following))


def _print(console: Console, rows: list[tuple[str, str]] | Rows) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)


def _data(run: Run) -> Rows:
    source = run.ranker.data.source
    tonight: dict[str, Any] = {}
    checked = quarantined = partitions = 0
    for back in range(run.ranker.data.window_days):
        day = run.partition - timedelta(days=back)
        verdict = run.store.get_json(f"{validated_prefix(source, day)}verdict.json")
        if verdict and verdict["verdict"] != "missing":
            tonight = tonight or verdict
            partitions += 1
            checked += verdict["rows_in"]
            quarantined += verdict["rows_quarantined"]
    if tonight:
        yield (
            "Tonight's rows",
            (
                f"{tonight['rows_in']:,} checked, {tonight['rows_quarantined']:,} quarantined: {tonight['headline']}"
            ),
        )
        yield "All rows read", f"{checked:,} checked, {quarantined:,} quarantined in {partitions} partitions"
    examples = run.stage("examples").result()
    if examples:
        yield (
            "Examples",
            (
                f"{examples['train']:,} to train, {examples['validation']:,} to validate, "
                f"{examples['holdout']:,} held out; {examples['items']:,} items"
            ),
        )


def _model(run: Run) -> Rows:
    tuned = run.stage("tune").result()
    if tuned and tuned.get("best"):
        best = ", ".join(
            f"{path.rpartition('.')[2]} {_short(value)}" for path, value in tuned["best"].items()
        )
        yield "Tuning", f"{tuned['trials']} trials; best: {best}"
    trained = run.stage("train").result()
    if trained:
        yield (
            "Training",
            (
                f"{trained['steps']:,} steps, loss {trained['first_loss']:.3f} → {trained['loss']:.3f}, "
                f"{trained['samples_per_second']:.0f} examples a second on {trained['processes']} × {trained['device']}"
            ),
        )
    packaged = run.stage("package").result()
    if packaged:
        yield "Package", f"{packaged['bytes'] / 1e6:.1f} MB, {packaged['precision']}"


def _verdict(run: Run) -> Rows:
    gate = run.stage("gate").result()
    if gate is None:
        return
    challenger = gate["challenger"]
    figures = [
        f"this version {challenger['value']:.4f} ({challenger['low']:.4f} to {challenger['high']:.4f})"
    ]
    champion = gate["champion"]
    if champion and champion["value"] is not None:  # an older partition is not compared with a newer champion
        figures.append(
            f"serving version {champion['version']} {champion['value']:.4f}, on the same questions: {champion['difference']:+.4f} "
            f"({champion['difference_low']:+.4f} to {champion['difference_high']:+.4f})"
        )
    figures += [f"{name} {value:.4f}" for name, value in gate["baselines"].items()]
    yield gate["metric"], f"{'; '.join(figures)}; {_questions(run, gate['queries'])}"
    yield "Gate", f"[bold]{gate['verdict']}[/]: {'; '.join(gate['reasons'])}"


def _questions(run: Run, asked: int) -> str:
    """How many of the held-out questions the gate asked, and what became of the others."""
    held_out = (run.stage("examples").result() or {}).get("holdout", asked)
    if held_out <= asked:
        return f"{asked:,} held-out queries"
    others = "; the others judged compression" if run.ranker.compression.steps else ""
    return f"{asked:,} of {held_out:,} held-out queries{others}"


def _serving(run: Run) -> Rows:
    published = run.stage("publish").result()
    if published and published["published"]:
        yield "Published", f"version {published['version']} at {published['uri']}"
    elif published:
        yield "Published", f"no: {published['reason']}"
    pointer = read_pointer(run.store, run.ranker.name)
    if pointer is None or pointer.stable is None:
        yield "Serving", "no version yet"
        return
    yield (
        "Serving",
        f"[bold]version {pointer.stable}[/]" + (f"; previous {pointer.previous}" if pointer.previous else ""),
    )
    for report in live_reports(run.store, run.ranker.name):
        loaded = ", ".join(str(version) for version in report.serving.available) or "nothing"
        yield (
            f"Agent {report.agent}",
            f"{report.server} answers with {report.serving.stable}; loaded: {loaded}",
        )


def _times(run: Run, seconds: float) -> Rows:
    parts = []
    for name in stages_of(run.ranker.kind):
        result = run.stage(name).result()
        if result and "seconds" in result:
            parts.append(f"{name} {result['seconds']:.0f}")
    yield "Seconds", f"{', '.join(parts)}; this command {seconds:.0f}"


def _answer(run: Run) -> tuple[str, dict[str, Any]] | None:
    """One held-out question that may be shown, asked of the model server: (the request, the ranked answer)."""
    pointer = read_pointer(run.store, run.ranker.name)
    if pointer is None or pointer.stable is None:
        return None
    import pyarrow.parquet as pq

    from reshelve.client.predict import predict

    examples, kind = run.stage("examples").files(), kind_of(run.ranker.kind)
    held_out = pq.read_table(examples / "holdout.parquet", columns=["text", "history_items"]).to_pylist()
    if not kind.may_show_text(run.ranker):
        known = {normalised(query) for query in common_queries(examples, run.ranker.remember)}
        held_out = [row for row in held_out if normalised(row["text"]) in known]
    question = kind.requests.demonstrate(held_out)
    if question is None:
        return None
    try:
        answer = predict(
            run.ranker, **{"history": None, "query": None, **question}, items=None, top=5, version=None
        )
    except ReshelveError as error:
        return f"{next(iter(question.values()))} (no answer: {error.headline})", {"items": []}
    return next(iter(question.values())), answer


def _short(value: Any) -> str:
    return plain(value, 3) if isinstance(value, float) else str(value)


def _addresses(here: Machine, following: str) -> Rows:
    yield "Airflow", f"{here.airflow_url}   log in as admin; the password is in {here.passwords_file}"
    yield (
        "Model server",
        f"gRPC 127.0.0.1:{here.ports.grpc_port}, REST http://127.0.0.1:{here.ports.rest_port}",
    )
    yield "Next", f"`{following}` runs the following night; `make stop` stops everything"
