"""JSON read without guesses: what is written in an object is text, letter for letter, numbers too.

Every parser at hand makes a number of `1.10` or `12E4` and writes 1.1 and 120000.0, so numbers are put into quotes
before they are parsed. Objects and lists stay what they are: `items[1].sku`, `unnest(items)`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb

from reshelve.clickstream.database import RawFileError, column, text
from reshelve.raw.null_strings import without
from reshelve.raw.opened import unpacked
from reshelve.raw.parsed import exact_json
from reshelve.raw.raw_csv import typed
from reshelve.raw.raw_format import Fault, RawFormat
from reshelve.raw.reader_options import ReaderOptions

_LONGEST_OBJECT = 16 * 1024 * 1024  # bytes
_MOST_KEYS = 200  # of an object within: more are no names but values, and it becomes a map


def json_query(
    db: duckdb.DuckDBPyConnection,
    files: Sequence[Path],
    options: ReaderOptions,
    filename: str | None = None,
) -> str:
    """The query over all objects of `files`, in their order; `filename`: a further column with the file of each.

    One column a key, VARCHAR all of them but for objects and lists. Raises duckdb.Error, RawFileError where there is
    no object.
    """
    objects = json_objects(files, options)
    limit = f" LIMIT {options.sample_size}" if options.sample_size else ""
    ((found,),) = db.execute(
        f"SELECT json_group_structure(json) FROM (SELECT json FROM {objects} WHERE json IS NOT NULL{limit})"
    ).fetchall()
    structure = json.loads(found, object_pairs_hook=_Pairs) if found else None
    if not isinstance(structure, _Pairs) or not structure:
        raise RawFileError(f"{files[0]} holds no objects; expected one object a line, or a list of objects")
    names, twice = _once(structure)
    given = {name.lower(): duckdb.type(sql_type) for name, sql_type in options.types.items()}
    wanted = {
        name: _of_type(given[name.lower()]) if name.lower() in given else _texts(child)
        for name, child in names.items()
    }
    # json_transform matches keys letter by letter, but a struct has no two that differ in case alone.
    others = [
        f"json_extract_string(_object, {text(_path(name))}) AS {column(f'{name}_{number}')}"
        for number, name in enumerate(twice, 1)
    ]
    described = db.execute(f"DESCRIBE SELECT * FROM {objects}").fetchall()
    # What the folders say (`dt=2011-08-01/`), where no key of the objects says it.
    told = {"json", "filename", *(name.lower() for name in names)}
    folders = [column(row[0]) for row in described if row[0].lower() not in told]
    columns = ["unnest(_row)", *others, *folders, *([column(filename)] if filename else [])]
    row = f"json_transform(_object, {text(json.dumps(wanted, ensure_ascii=False))})"
    passed = ", ".join(
        [
            f"{exact_json('CAST(json AS VARCHAR)')} AS _object",
            *folders,
            *([f"filename AS {column(filename)}"] if filename else []),
        ]
    )
    texts = (
        f"SELECT {', '.join(columns)} FROM (SELECT *, {row} AS _row"
        f" FROM (SELECT {passed} FROM {objects} WHERE json IS NOT NULL))"
    )
    texts = without(db, texts, options.null_strings)
    return f"SELECT {typed(list(names), options)} FROM ({texts})" if given else texts


def json_objects(files: Sequence[Path], options: ReaderOptions) -> str:
    """DuckDB's reader of `files` as the texts of their objects (`json`, `filename`); NULL for a line that may be left out."""
    listed = ", ".join(map(text, files))
    lenient = ", format = 'newline_delimited', ignore_errors = true" if options.max_rejects else ""
    return f"read_json_objects([{listed}], filename = true, hive_types_autocast = false, maximum_object_size = {_LONGEST_OBJECT}{lenient})"


def _of_type(sql_type: Any) -> Any:
    """The structure of a type that is given, with VARCHAR for its leaves: a cast from text fails aloud, where DuckDB's
    transformation of JSON answers NULL."""
    children = dict(sql_type.children) if sql_type.id in ("struct", "list", "map") else {}
    match sql_type.id:
        case "struct":
            return {name: _of_type(child) for name, child in children.items()}
        case "list":
            return [_of_type(children["child"])]
        case "map":
            return (
                f"MAP(VARCHAR, {_of_type(children['value'])})"
                if _is_leaf(children["value"])
                else str(sql_type)
            )
    return "VARCHAR"


def _is_leaf(sql_type: Any) -> bool:
    return sql_type.id not in ("struct", "list", "map")


class _Pairs(list[tuple[str, Any]]):
    """An object's keys in their order; two of them may be the same word."""


def _once(pairs: _Pairs) -> tuple[dict[str, Any], list[str]]:
    """The keys that differ in more than case, and the others."""
    names: dict[str, Any] = {}
    twice = []
    for name, child in pairs:
        if name.lower() in {known.lower() for known in names}:
            twice.append(name)
        else:
            names[name] = child
    return names, twice


def _texts(node: Any) -> Any:
    """A structure as DuckDB finds it, with VARCHAR for all that is neither object nor list.

    What is now an object and now a value is the text of either.
    """
    if isinstance(node, _Pairs):
        names, twice = _once(node)
        if twice:
            return "VARCHAR"
        return (
            {name: _texts(child) for name, child in names.items()}
            if len(names) <= _MOST_KEYS
            else "MAP(VARCHAR, VARCHAR)"
        )
    if isinstance(node, list):
        return [_texts(child) for child in node]
    return "VARCHAR"


def _path(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'$."{escaped}"'


def _explain(files: Sequence[Path], message: str) -> Fault | None:
    """DuckDB counts the lines of malformed JSON otherwise."""
    if "Malformed JSON" not in message:
        return None
    return next((Fault(path, line, said) for path in files for line, said in _broken_lines(path)), None)


def _rejects(db: duckdb.DuckDBPyConnection, files: Sequence[Path], options: ReaderOptions) -> Iterator[Fault]:
    """The lines that DuckDB left out: it counts those that are not blank."""
    for path in files:
        rows = db.execute(
            f"SELECT place FROM (SELECT json, row_number() OVER () AS place FROM {json_objects([path], options)})"
            " WHERE json IS NULL ORDER BY place"
        ).fetchall()
        if not rows:
            continue
        with unpacked(path) as file:
            lines = [number for number, line in enumerate(file, 1) if line.strip()]
        reasons = dict(_broken_lines(path))
        for (place,) in rows:
            yield Fault(path, lines[place - 1], reasons.get(lines[place - 1], "no JSON"))


def _broken_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file of JSON lines that hold no JSON, and why. None where it is no such file."""
    try:
        with unpacked(path) as file:
            for number, line in enumerate(file, 1):
                try:
                    if line.strip():
                        json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                except UnicodeDecodeError as error:
                    yield number, f"not utf-8 encoded (byte {error.start + 1})"
                except json.JSONDecodeError as error:
                    if number == 1 and error.pos >= len(line.decode().rstrip()):
                        return  # a list, or objects over several lines
                    yield number, f"{error.msg} (character {error.pos + 1})"
                except (RecursionError, ValueError) as error:
                    yield number, str(error)
    except (OSError, EOFError, zlib.error):
        return  # damaged as a whole, as DuckDB says


JSON = RawFormat(
    "json", "JSON lines", (".json", ".jsonl", ".ndjson"), json_query,
    frozenset({"encoding", "max_rejects", "null_strings", "sample_size", "types"}), rejects=_rejects, explain=_explain,
)  # fmt: skip
