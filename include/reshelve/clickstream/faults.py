"""What DuckDB's errors say, in one line and without a value: what does not fit may be a customer's.

Errors about SQL (a column that is not there, a wrong type) and about files are told as they are. Errors about data are
told by the sentences below, which keep types, columns, lines and places; of any other nothing but its kind is told.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import duckdb

_TOLD = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.IOException,
    duckdb.ParserException,
    duckdb.PermissionException,
    duckdb.SyntaxException,
)
_HINTS = (
    "Possible ",
    "Try ",
    "If you are trying",
    "* ",
    "LINE ",
    "You can ",
    "Candidate functions",
    "Candidate bindings",
)
_TYPE = r"'?(?P<type>[A-Z][A-Z0-9_ ]*(?:\([0-9, ]+\))?(?:\[[0-9]*\])*)'?"
_VALUE = "(?:'.*'|\".*\")"
_DATA = (
    (rf"(?:Error when converting column .*)?Could not convert string {_VALUE} to {_TYPE}", "a text cannot be converted to {type}"),
    (rf"Casting value {_VALUE} to type {_TYPE} failed: .*", "a value is out of range for {type}"),
    (rf"Type (?P<of>[A-Z0-9_]+) with value .* can't be cast .*destination type {_TYPE}", "a value of type {of} cannot be converted to {type}"),
    (r"Type (?P<of>[A-Z0-9_]+) with value .* can't be cast .*", "a value of type {of} cannot be converted"),
    (r"invalid (?P<type>timestamp|date|time|interval) field format: .*", "a text cannot be converted to {type}: its format is another"),
    (r"(?P<type>timestamp|date|time|interval) field value out of range: .*", "a text cannot be converted to {type}: it is out of range, or its format is another"),
    (r"Could not parse string .* according to format specifier .*", "a text does not have the format that strptime expects"),
    (r"Overflow in (?P<type>[a-z]+ of [A-Z0-9]+) .*", "overflow in {type}"),
    (r"(?P<type>Date|Timestamp microseconds|Epoch [a-z]+) out of range.*", "{type} out of range"),
    (r"Malformed JSON at byte (?P<type>[0-9]+) of input: .*", "a text is no JSON: byte {type}"),
    (r"(?P<type>More than one row returned by a subquery used as an expression|Map keys must be unique)\b.*", "{type}"),
    (r"Failure in decode: .*", "bytes are not UTF-8"),
    (r"Unknown TimeZone .*", "a text is not the name of a time zone"),
)  # fmt: skip
_FILES = (
    (r'Malformed JSON in file "(?P<file>.*)", at byte (?P<at>[0-9]+ in [a-z/]+ [0-9]+): .*', "Malformed JSON in file {file}, at byte {at}"),
    (r"(?P<at>No magic bytes found at end of file|Footer length error in file|Prematurely reached end of file) '(?P<file>.*)'.*", "{at} {file}"),
    (r'Failed to read file "(?P<file>[^"]*)": .*', "Failed to read file {file}: it is damaged"),
)  # fmt: skip
_LIKE_A_VALUE = r"[+(-]*[0-9][0-9 ./:,()+-]*|.*[0-9]{4}-[0-9]{2}-[0-9]{2}.*|.*@.*\..*"
_CSV = (
    r"Expected Number of Columns: [0-9]+ Found: [0-9]+",
    r"Value with unterminated quote found\.?",
    r"Invalid unicode \([a-z ]+\) detected\. This file is not [a-z0-9-]+ encoded\.?",
    r"Maximum line size of [0-9]+ bytes exceeded\. Actual Size: ?[0-9]+ bytes\.?",
)


def reason(error: Exception, *, bound: bool = False) -> str:
    """What DuckDB says of a fault, in one line: without values, its drawing of the statement, and its advice.

    `bound`: the statement was bound and its files were read before, so whatever is wrong now is wrong with the data, even
    where DuckDB calls it an error of binding (as it does of a path into JSON), or a value reads like an error.
    """
    message = re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", str(error).strip())
    if bound and not isinstance(error, duckdb.IOException):
        return _data_fault(message, error, _DATA)
    if found := re.match(r"CSV Error on Line: ([0-9]+)\n", message):
        files = re.findall(r"^  file = (.*)$", message, re.MULTILINE)
        return f"{files[-1] if files else 'CSV'}: line {found.group(1)}: {csv_fault(message)}"
    if isinstance(error, _TOLD):
        kept = itertools.takewhile(lambda line: not line.strip().startswith(_HINTS), message.splitlines())
        return " ".join(line.strip() for line in kept if line.strip(" ^"))
    return _data_fault(message, error, (*_FILES, *_DATA))


def columns_told(names: Sequence[str]) -> str:
    """The columns of raw files for a message; not where the line that is to name them looks like a customer's row."""
    if any(re.fullmatch(_LIKE_A_VALUE, name.strip()) for name in names):
        return f"{len(names)}, with names that look like values: is the first line a header (options.header)?"
    return ", ".join(names)


def csv_fault(message: str) -> str:
    """What a CSV reader's message says is wrong with a line, without the line."""
    found = (re.search(f"^{sentence}", message, re.MULTILINE) for sentence in _CSV)
    if fault := next(filter(None, found), None):
        return fault.group()
    if column := re.search(r'^Error when converting column "(.*?)"\. ', message, re.MULTILINE):
        return f"column {column.group(1)}: a text cannot be converted"
    return "the line is no CSV"


def _data_fault(message: str, error: Exception, sentences: Sequence[tuple[str, str]]) -> str:
    said = re.sub(
        r" when casting from source column .*$", "", message.partition("\n\nLINE ")[0], flags=re.DOTALL
    )
    for sentence, told in sentences:
        if found := re.fullmatch(sentence, said, re.DOTALL):
            return told.format(**found.groupdict())
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__.removesuffix("Exception")).lower()
    return f"a value does not fit (DuckDB: {kind})"
