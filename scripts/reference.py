"""Write docs/reference/{cli,ranker-file,mapping-file,settings,metrics}.md from the code, figures.md from the benchmarks, and the index docs/README.md.

python scripts/reference.py            writes the files
python scripts/reference.py --check    exit 1 where a file differs (a test does this)
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import annotated_types
import figures
import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from reshelve.cli import app
from reshelve.config.compression import Step
from reshelve.config.kind_names import kind_names, require_kind
from reshelve.config.ranker import Ranker
from reshelve.modelserver.server_options import ServerOptions
from reshelve.monitoring.exporter import METRICS
from reshelve.pipeline.personal_data import BUCKET, HOME
from reshelve.platform.configuration import Ports
from reshelve.raw.sources import ClickstreamSource, ProductFiles
from reshelve.settings import PROJECT, Settings

DOCS = PROJECT / "docs"
SECTIONS = {
    "Learn": "tutorial",
    "Do": "how-to",
    "Look up": "reference",
    "Understand": "explanation",
    "Decisions, and why": "decisions",
}
MADE = "<!-- Made by scripts/reference.py from the code: `make docs`. -->\n"


def cli() -> str:
    """docs/reference/cli.md."""
    lines = [
        "# The `reshelve` command",
        MADE,
        "`.venv/bin/reshelve VERB --help` says the same. With `--json`, stdout carries exactly one JSON object; logs go to stderr.",
        "A running local platform (`make run`) is used automatically, unless the environment sets another S3.\n",
        "| exit code | meaning |",
        "|---|---|",
        "| 0 | done |",
        "| 65 | bad data: a retry does not help |",
        "| 73 | part of the data is bad, the rest is done: a retry does not help |",
        "| 75 | a temporary failure: a retry resumes the work |",
        "| 78 | bad configuration: a retry does not help |\n",
    ]
    for name, command in _commands(typer.main.get_command(app), "reshelve"):
        lines += [f"## `{name}`\n", command.help.strip() + "\n"]
        if command.params:
            lines += ["| option | | default |", "|---|---|---|"]
            lines += [_option(parameter) for parameter in command.params]
            lines.append("")
    return "\n".join(lines)


def ranker_file() -> str:
    """docs/reference/ranker-file.md."""
    lines = [
        "# Ranker files",
        MADE,
        "One YAML file in `include/rankers/` is one ranking problem, named after the file. Unknown keys are refused, with the",
        "line and what was expected. Any key can be overridden for one run: `--set training.epochs=2`.\n",
        *_keys(Ranker, ""),
        "\n## Steps of `compression.steps`\n",
        "Each is a name (`- int8`) or a mapping (`- {step: distil, layers: 3}`); see [how to](../how-to/compress.md).\n",
        *(line for step in typing.get_args(typing.get_args(Step)[0]) for line in _step(step)),
    ]
    return "\n".join(lines)


MAPPING_ROOM = """
## What a mapping file can and cannot do

A mapping file is code: review it as you review code, and let nobody write to `include/clickstreams/` who may not change the project. It decides what is landed,
so it can leave out, invent or mix up events, and it can make a landing slow. It cannot do more than that:

| | allowed | refused |
|---|---|---|
| an expression (`columns`, `leave_out`, `event_date`, `catalogue.item_id`, `catalogue.title`) | one DuckDB expression over the row; subqueries over its own lists (`unnest`, `range`, `generate_series`, `json_each`, `json_tree`, `repeat`) | `;`, an alias, a second column, other tables and table functions (`read_csv`, `glob`, `duckdb_secrets`, …), functions that tell of the process (`getvariable`, `current_setting`, …) |
| `rows` | one `SELECT` over `raw` and its own `WITH` tables | any other statement: `COPY`, `ATTACH`, `INSTALL`, `LOAD`, `SET`, `PRAGMA`, `CALL`, `INSERT` and `DELETE` within `WITH` |
| `options.types` | one type | anything after it |
| `files`, `catalogue.files` | any file that the landing may read | files in `RESHELVE_HOME` (keys and state), `/etc`, `/proc`, `/sys`, `/dev` and `/run/secrets`, also by way of a link |
| the database that runs it | the raw files of this source, and its own work directory | every other file, writing outside, extensions, the network, changed settings |

What is refused is named with file, line and key (exit code 78). The pseudonym keys are never on the database connection that runs a mapping. Errors about data name the
raw file and row, and never repeat a value.
"""


def mapping_file() -> str:
    """docs/reference/mapping-file.md."""
    lines = [
        "# Mapping files",
        MADE,
        "One YAML file in `include/clickstreams/` is one clickstream source, named after the file. Unknown keys, and options that do not apply to",
        "the format, are refused, with the line and what was expected. How to write one: [use your own clickstream](../how-to/use-your-own-clickstream.md).\n",
        *_keys(ClickstreamSource, ""),
        "\n## `catalogue`\n",
        f"{(ProductFiles.__doc__ or '').strip()} Its `options` are those above.\n",
        *_keys(ProductFiles, "catalogue.", nested=False),
        MAPPING_ROOM,
    ]
    return "\n".join(lines)


def _step(form: type[BaseModel]) -> Iterator[str]:
    """A kind of compression step: what it does, and its values."""
    name = form.model_fields["step"].default
    yield f"**`{name}`**: {(form.__doc__ or '').strip()}\n"
    values = {key: field for key, field in form.model_fields.items() if key != "step"}
    if values:
        yield from ("| value | | values | default |", "|---|---|---|---|")
    for key, field in values.items():
        yield f"| `{key}` | {_cell(field.description or '')} | {_values(field)} | {_default(field)} |"
    yield ""


def settings_page() -> str:
    """docs/reference/settings.md."""
    lines = [
        "# Settings",
        MADE,
        "Environment variables. S3 uses those of boto3: `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,",
        "`AWS_DEFAULT_REGION`. `make run` writes all of them to `.reshelve/env` (mode 0600) for the local platform.",
        "An unknown variable `RESHELVE_…` causes a warning; an invalid value exits with 78.",
        "`AWS_REQUEST_CHECKSUM_CALCULATION=when_required` is for [stores without checksum support](../how-to/object-stores.md).\n",
        "## Everywhere\n",
        *_variables(Settings, "RESHELVE_"),
        "| `RESHELVE_LOG` | `json` for JSON logs. | readable lines |",
        "| `RESHELVE_START_DATE` | The first partition that the schedule handles (YYYY-MM-DD). | day of the set-up |",
        "\n## The local platform's ports (all on 127.0.0.1)\n",
        *_variables(Ports, "RESHELVE_"),
        "\n## The local model server\n",
        *_variables(ServerOptions, "RESHELVE_SERVING_"),
        "\n## Set-up\n",
        "| variable | | default |",
        "|---|---|---|",
        "| `RESHELVE_PYTHON` | The Python 3.11 that makes `.venv`. | `python3.11` |",
        "| `RESHELVE_WHEELS` | Directory for the built Horovod wheel; clones may share it. | `.wheels` |",
        "| `RESHELVE_HOROVOD` | `nccl` or `cpu`: what Horovod is built for. | `nccl` if CUDA's compiler and a GPU are found |",
        "\n## Files of the local platform (`RESHELVE_HOME`)\n",
        "The directory has mode 0700, and every process of ours the umask 077.\n",
        "| path | |",
        "|---|---|",
        "| `platform.json` | pid and start time of each service; no other process is ever stopped |",
        "| `env` | the environment of the platform, for shells: `set -a; . .reshelve/env; set +a`; this also adds its commands to the PATH |",
        "| `logs/` | one log per service |",
        "| `airflow/` | AIRFLOW_HOME: task logs, `secrets.json` and `passwords.json` (mode 0600) |",
        "| `postgres/`, `seaweedfs/` | the database's and the object store's data |",
        "| `serving/models/` | versions copied by the agent for the model server |",
        "| `work/` | work directories of runs: a cache; all lasting data is on S3 |",
        "",
    ]
    return "\n".join(lines)


def metrics_page() -> str:
    """docs/reference/metrics.md."""
    lines = [
        "# Metrics",
        MADE,
        "`reshelve metrics` serves these at `/metrics`, from the newest looks of the watch: [monitor serving](../how-to/watch-what-serves.md).",
        "Counters start at 0 with the process and end in `_total`; each look is counted once.\n",
        "| metric | |",
        "|---|---|",
        *[f"| `{name}` | {_cell(text)} |" for name, text in METRICS.items()],
        "",
    ]
    return "\n".join(lines)


def personal_data_page() -> str:
    """docs/reference/personal-data.md."""
    lines = [
        "# Personal data",
        MADE,
        "What is kept of people, where, why and how long. `reshelve housekeeping` and `reshelve expire`, which run every day, delete what is over; "
        "[`reshelve forget`](../how-to/forget-a-person.md) reaches one person before that. A test holds this list against what a night writes.\n",
    ]
    for title, places in (("In the bucket", BUCKET), ("Below `RESHELVE_HOME`", HOME)):
        lines += [
            f"## {title}\n",
            "| where | what | of people | why | until | forget |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| `{held.where}` | {_cell(held.what)} | {held.personal or 'nothing'} | {held.why} | {held.end.value} | {held.forget.value} |"
            for held in places
        ]
        lines.append("")
    return "\n".join(lines)


def index() -> str:
    """docs/README.md: every page by its title."""
    lines = ["# Documentation", MADE]
    for heading, folder in SECTIONS.items():
        lines.append(f"\n**{heading}**\n")
        if folder == "explanation":
            lines.append("- [Architecture](architecture.md)")
            lines.append("- [Security](security.md)")
        for path in sorted((DOCS / folder).glob("*.md")):
            title = path.read_text().splitlines()[0].removeprefix("# ")
            lines.append(f"- [{title}]({folder}/{path.name})")
    return "\n".join(lines)


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(full name, command) of every verb, groups left out."""
    for key, sub in sorted(command.commands.items()):
        full = f"{name} {key}"
        if hasattr(sub, "commands"):
            yield from _commands(sub, full)
        else:
            yield full, sub


def _option(parameter: Any) -> str:
    names = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
    default = (
        "**required**"
        if parameter.required
        else ""
        if parameter.default in (None, False, "")
        else f"`{parameter.default}`"
    )
    return f"| {names} | {_cell(parameter.help or '')} | {default} |"


def _keys(form: type[BaseModel], prefix: str, *, nested: bool = True) -> Iterator[str]:
    """A table of the form's own keys, then (`nested`) one section per nested form."""
    fields = form.model_fields if nested else {n: f for n, f in form.model_fields.items() if not _form(f)}
    plain = {name: field for name, field in fields.items() if not _form(field)}
    yield "| key | | values | default |"
    yield "|---|---|---|---|"
    for name, field in plain.items():
        yield f"| `{prefix}{name}` | {_cell(field.description or '')} | {_cell(_values(field))} | {_default(field)} |"
    for name, field in fields.items():
        part = _form(field)
        if part:
            yield f"\n## `{prefix}{name}`\n\n{(part.__doc__ or '').strip()}\n"
            yield from _keys(part, f"{prefix}{name}.")
    yield ""


def _variables(form: type[BaseModel], prefix: str) -> Iterator[str]:
    yield "| variable | | default |"
    yield "|---|---|---|"
    for name, field in form.model_fields.items():
        default = field.default
        if isinstance(default, Path):
            text = (
                f"`{default.relative_to(PROJECT)}`"
                if default.is_relative_to(PROJECT)
                else f"`../{default.relative_to(PROJECT.parent)}`"
            )
        else:
            text = "by the processors" if field.default_factory else f"`{default}`"
        yield f"| `{prefix}{name.upper()}` | {_cell(field.description or '')} | {text} |"


def _form(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _values(field: FieldInfo) -> str:
    low = [c for c in field.metadata if isinstance(c, annotated_types.Ge | annotated_types.Gt)]
    high = [c for c in field.metadata if isinstance(c, annotated_types.Le | annotated_types.Lt)]
    if any(getattr(known, "func", None) is require_kind for known in field.metadata):
        return " · ".join(f"`{name}`" for name in kind_names())
    text = _kind(field.annotation)
    if low:
        text += f" ≥ {low[0].ge}" if isinstance(low[0], annotated_types.Ge) else f" > {low[0].gt}"
    if high:
        text += f", ≤ {high[0].le}" if isinstance(high[0], annotated_types.Le) else f", < {high[0].lt}"
    return text


def _kind(annotation: Any) -> str:
    if annotation == Step:
        return "a step"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " · ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(a) for a in arguments if a is not type(None))
    if origin is typing.Annotated:
        return _kind(arguments[0])
    if origin is tuple:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return f"{_kind(arguments[0])} → {_kind(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"`{{{', '.join(f'{name}: …' for name in annotation.model_fields)}}}`"
    if hasattr(annotation, "__members__"):
        return " · ".join(f"`{member.value}`" for member in annotation)
    return {"str": "text", "int": "integer", "float": "number", "bool": "`true` · `false`"}.get(
        annotation.__name__, annotation.__name__
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.default if field.default is not PydanticUndefined else {}
    if value is None:
        return "`null`"
    if isinstance(value, tuple):
        value = [item.step if hasattr(item, "step") else item for item in value]
    return f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# The index last: it reads the titles of the others.
PAGES = {
    "reference/cli.md": cli,
    "reference/mapping-file.md": mapping_file,
    "reference/ranker-file.md": ranker_file,
    "reference/settings.md": settings_page,
    "reference/metrics.md": metrics_page,
    "reference/personal-data.md": personal_data_page,
    "reference/figures.md": figures.page,
    "README.md": index,
}


def main() -> int:
    """Write or check the pages."""
    stale = 0
    for name, page in PAGES.items():
        path = DOCS / name
        text = page().rstrip() + "\n"
        if not path.is_file() or path.read_text() != text:
            stale += 1
            if "--check" in sys.argv:
                print(f"{path.relative_to(PROJECT)} differs from the code: run `make docs`")
            else:
                path.write_text(text)
                print(f"wrote {path.relative_to(PROJECT)}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
