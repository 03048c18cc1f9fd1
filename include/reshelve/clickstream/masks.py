"""What a person types by mistake, and nobody is to keep: e-mail addresses, IBANs, card and telephone numbers.

This is the one place that masks, in two steps: a pattern finds candidates without Python (`CANDIDATE`, for DuckDB and
Arrow alike), and `mask` judges the few that it finds. Numbers without any sign of what they are stay: shops' own (sku, EAN,
UPC, ISBN) are typed as queries. What that costs and finds: decision 0199.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reshelve.clickstream.database import column, text
from reshelve.files import whole

FREE_TEXTS = ("query",)
"""The event columns that customers write; all others are the shop's words or ids."""

# Length of a country's IBAN (SWIFT's registry of IBAN formats).
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU", 31: "MT SC", 32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip

# Digits of the scripts that phones and banks write with; all else is unlike any number below.
_DIGIT = "0-9\u0660-\u0669\u06f0-\u06f9\u0966-\u096f\uff10-\uff19"
CANDIDATE = f"@|\uff20|[{_DIGIT}](?:[^{_DIGIT}]*[{_DIGIT}]){{7}}"
"""What may hold something to mask, for RE2 (DuckDB's and Arrow's): an @, or eight digits. Nothing else is looked at."""

_LEAST_DIGITS = 8  # of a telephone number that is written as one
_CARD_DIGITS = range(14, 20)  # 13 are only Visa's old ones, and every EAN

_EMAIL = re.compile(r"[^\s@<>]{1,64}@[^\s@<>]{1,253}\.[^\W\d_]{2,}")
_ALONE, _ENDS = r"(?<![0-9A-Za-z])", r"(?![0-9A-Za-z])"  # in no article number
_IBAN_HEAD = re.compile(rf"{_ALONE}[A-Za-z]{{2}}[0-9]{{2}} ?[0-9A-Za-z]")
_CARD_GROUPS = re.compile(rf"{_ALONE}[0-9]+(?:([ .-])[0-9]+(?:\1[0-9]+)*)?{_ENDS}")  # one separator
_AS_A_CARD = re.compile(rf"{_ALONE}(?:[0-9]{{4}}[ -]){{3}}[0-9]{{1,7}}{_ENDS}")
_NOT_IN = r"(?<![0-9A-Za-z])(?<![0-9][./-])"  # a date, a version
_NO_MORE = r"(?![0-9A-Za-z]|[./-][0-9])"
_GAP = r"[ ().\-/]{0,3}"
_TOLD = "tel|tél|telefon|telefono|teléfono|téléphone|telephone|phone|fon|mobile|mobil|handy|call|ring|whatsapp|fax|电话|電話|手机"
"""What has to stand before a national number in groups that no country alone writes: article numbers are 0601 019 500, too."""
_PHONE = re.compile(
    "|".join(
        (
            rf"(?<![0-9A-Za-z+])\+[0-9](?:{_GAP}[0-9]){{7,14}}{_ENDS}",  # +44 20 7946 0958
            rf"{_NOT_IN}00[1-9][0-9]{{0,2}}[ (/-](?:{_GAP}[0-9]){{6,12}}{_NO_MORE}",  # 0044 20 7946 0958
            rf"{_NOT_IN}\([0-9]{{2,5}}\) ?[0-9](?:[ .-]?[0-9]){{4,9}}{_NO_MORE}",  # (020) 7946 0958
            rf"{_NOT_IN}(?:1[ .-])?[0-9]{{3}}(?P<sep>[ .-])[0-9]{{3}}(?P=sep)[0-9]{{4}}{_NO_MORE}",  # 555-867-5309
            rf"{_NOT_IN}0[1-9][0-9]?(?P<gap>[ .-])(?:[0-9]{{3}}(?P=gap))?[0-9]{{2}}(?:(?P=gap)[0-9]{{2}}){{1,3}}{_NO_MORE}",  # 06 12 34 56 78, 044 123 45 67
            rf"{_NOT_IN}(?:01[5-7]|02[0-9]|07[4-9])(?:[ /-]?[0-9]){{8}}{_NO_MORE}",  # 0171 1234567, 020 7946 0958: eleven digits
            rf"{_NOT_IN}0[1-9][0-9]{{1,2}}-[0-9]{{8}}{_NO_MORE}",  # 010-52262798, 0755-66607001
            rf"{_NOT_IN}1[3-9][0-9]{{9}}{_NO_MORE}",  # 13910668984
            rf"(?<![A-Za-z<])(?i:{_TOLD})[^0-9A-Za-z+(]{{0,3}}(?P<told>0[1-9](?:{_GAP}[0-9]){{7,10}}){_NO_MORE}",  # tel. 030 1234567
        )
    )
)
_NATIONAL_DIGITS = range(9, 13)
_ABROAD_DIGITS = 11  # the fewest with 00 and a country's code
_IBAN_DIGITS = 10  # the fewest of any country: the words of a title may be 1 modulo 97

_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212\uff0d"), "-")
_SPACES = dict.fromkeys(map(ord, "\u00a0\u2007\u2009\u202f\u3000"), " ")
_SIGNS = {**_DASHES, **_SPACES, ord("\uff20"): "@", ord("\uff0b"): "+", ord("\uff0e"): "."}


def mask(typed: str) -> str:
    """A text with `<e-mail>`, `<iban>`, `<card>` and `<phone>` where a person's own was. What is masked stays as it is."""
    for name, places in (("<e-mail>", _emails), ("<iban>", _ibans), ("<card>", _cards), ("<phone>", _phones)):
        parts, end = [], 0
        for begin, until in places(_plain(typed)):
            if begin >= end:
                parts += [typed[end:begin], name]
                end = until
        typed = "".join([*parts, typed[end:]])
    return typed


def mask_array(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The same of a whole column of strings; the very same object where nothing is masked."""
    if isinstance(texts, pa.ChunkedArray):
        chunks = texts.chunks  # each call of it makes new objects
        masked = [mask_array(chunk) for chunk in chunks]
        same = all(new is old for new, old in zip(masked, chunks, strict=True))
        return texts if same else pa.chunked_array(masked, texts.type)
    candidates = pc.fill_null(pc.match_substring_regex(texts, CANDIDATE), False)
    if not pc.any(candidates).as_py():
        return texts
    found = texts.filter(candidates).to_pylist()
    changed = [mask(one) for one in found]
    return (
        texts if changed == found else pc.replace_with_mask(texts, candidates, pa.array(changed, texts.type))
    )


def mask_table(table: pa.Table) -> tuple[pa.Table, int]:
    """Event rows with their free texts masked, and how many texts that changed."""
    changed = 0
    for name in FREE_TEXTS:
        place = table.schema.get_field_index(name)
        if place >= 0 and pa.types.is_string(table.schema.field(place).type):
            before = table.column(place)
            masked = mask_array(before)
            if masked is not before:
                changed += pc.sum(pc.not_equal(masked, before)).as_py()
                table = table.set_column(place, table.schema.field(place), masked)
    return table, changed


def mask_file(path: Path) -> bool:
    """Mask a Parquet file of event rows in place, whole or not at all; whether there was anything to mask.

    Only the free texts are read where there is nothing. Rows keep their order.
    """
    with pq.ParquetFile(path) as file:
        named = [name for name in FREE_TEXTS if name in file.schema_arrow.names]
        batches = (batch[name] for batch in file.iter_batches(columns=named) for name in named)
        if not any(mask_array(_strings(column)) is not column for column in map(_strings, batches)):
            return False
        with (
            whole(path) as partial,
            pq.ParquetWriter(partial, file.schema_arrow, compression="zstd") as writer,
        ):
            for batch in file.iter_batches():
                writer.write_table(mask_table(pa.Table.from_batches([batch]))[0])
    return True


def mask_events(db: duckdb.DuckDBPyConnection) -> int:
    """Mask the free texts of DuckDB's table `events` in place; returns how many texts of rows that changed."""
    rows = 0
    for name in map(column, FREE_TEXTS):
        found = db.execute(
            f"SELECT DISTINCT {name} FROM events WHERE regexp_matches({name}, {text(CANDIDATE)})"
        ).fetchall()
        changes = [(typed, masked) for (typed,) in found if (masked := mask(typed)) != typed]
        if changes:
            db.register(
                "masks", pa.table([*map(pa.array, zip(*changes, strict=True))], names=["typed", "masked"])
            )
            ((count,),) = db.execute(
                f"UPDATE events SET {name} = masked FROM masks WHERE {name} = typed"
            ).fetchall()
            rows += count
            db.unregister("masks")
    return rows


def _strings(column: pa.Array) -> pa.Array:
    return column if pa.types.is_string(column.type) else pa.nulls(0, pa.string())


def _plain(typed: str) -> str:
    """The same text, sign for sign, with the digits, dashes and blanks of every script as ASCII has them."""
    if typed.isascii():
        return typed
    return "".join(str(int(sign)) if sign.isdecimal() else _SIGNS.get(ord(sign), sign) for sign in typed)


def _emails(typed: str) -> Iterator[tuple[int, int]]:
    if "@" in typed:
        for found in _EMAIL.finditer(typed):
            yield found.span()


def _ibans(typed: str) -> Iterator[tuple[int, int]]:
    """What begins as a country's IBAN, has its length and its checksum: the number it spells is 1 modulo 97."""
    for head in _IBAN_HEAD.finditer(typed):
        length = _IBAN_LENGTHS.get(typed[head.start() : head.start() + 2].upper())
        if length is None:
            continue
        found = re.compile(rf"[0-9A-Za-z](?: ?[0-9A-Za-z]){{{length - 1}}}{_ENDS}").match(typed, head.start())
        if found is None:
            continue
        code = found.group().replace(" ", "").upper()
        if sum(map(str.isdecimal, code)) < _IBAN_DIGITS:
            continue
        if int("".join(str(int(sign, 36)) for sign in code[4:] + code[:4])) % 97 == 1:
            yield found.span()


def _cards(typed: str) -> Iterator[tuple[int, int]]:
    """Whole groups of digits that are together a card's number; and four by four whatever they are: it may be mistyped."""
    yield from sorted({*_card_numbers(typed), *(found.span() for found in _AS_A_CARD.finditer(typed))})


def _card_numbers(typed: str) -> Iterator[tuple[int, int]]:
    for run in _CARD_GROUPS.finditer(typed):
        groups = [
            (run.start() + found.start(), found.group()) for found in re.finditer("[0-9]+", run.group())
        ]
        for first in range(len(groups)):
            digits = ""
            for begin, group in groups[first : first + _CARD_DIGITS.stop]:
                digits += group
                if len(digits) >= _CARD_DIGITS.stop:
                    break
                if _is_card(digits):
                    yield groups[first][0], begin + len(group)


def _is_card(digits: str) -> bool:
    """A length and a beginning that card issuers have (ISO/IEC 7812), and Luhn's checksum."""
    return len(digits) in _lengths(digits) and _luhn(digits)


def _lengths(digits: str) -> tuple[int, ...]:
    two, four = int(digits[:2]), int(digits[:4])
    if digits[0] == "4":  # Visa
        return (16, 19)
    if 51 <= two <= 55 or 2200 <= four <= 2720:  # Mastercard, Mir
        return (16, 17, 18, 19) if four < 2221 else (16,)
    if two in (34, 37):  # American Express
        return (15,)
    if two in (36, 38, 39) or 300 <= int(digits[:3]) <= 305:  # Diners
        return (14, 16, 17, 18, 19)
    if (
        3528 <= four <= 3589 or two in (50, 56, 57, 58) or digits[0] == "6"
    ):  # JCB, Maestro, Discover, UnionPay
        return (16, 17, 18, 19)
    return ()


def _luhn(digits: str) -> bool:
    """The checksum of ISO/IEC 7812-1, annex B: every second digit from the right is doubled."""
    total = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        total += digit if place % 2 == 0 else 2 * digit - 9 * (digit > 4)
    return total % 10 == 0


def _phones(typed: str) -> Iterator[tuple[int, int]]:
    for found in _PHONE.finditer(typed):
        group = "told" if found["told"] else 0
        number = found[group]
        digits = sum(map(str.isdecimal, number))
        least = _ABROAD_DIGITS if number.startswith("00") else _LEAST_DIGITS
        national = number[0] == "0" and number[1] != "0"
        if digits in _NATIONAL_DIGITS if national else digits >= least:
            yield found.span(group)
