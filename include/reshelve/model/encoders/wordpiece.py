"""BERT's tokenizer.json: whether the graph's WordPiece reads every text as it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reshelve.model.encoders.base import Document, Encoder

CLS, SEP, PAD = "[CLS]", "[SEP]", "[PAD]"
_KINDS = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer", "model": "WordPiece"}
_FIRST, _SECOND = -1, -2  # in templates: the texts, where tokens are their ids

Template = tuple[tuple[int, int], ...]  # token ids and texts, each with its segment


def wordpiece_problems(form: Document) -> list[str]:
    """What of a parsed tokenizer.json the graph does not know, the special tokens around texts left out.

    Raises KeyError, TypeError or AttributeError where it is no tokenizer.json.
    """
    kinds = {part: (form.get(part) or {}).get("type") for part in _KINDS}
    if wrong := [
        f"{part} {kinds[part]}, expected {_KINDS[part]}" for part in _KINDS if kinds[part] != _KINDS[part]
    ]:
        return [", ".join(wrong)]
    vocabulary: dict[str, int] = form["model"]["vocab"]
    return [*_names(form["model"], vocabulary), *_added(form.get("added_tokens") or [], vocabulary)]


def tokenizer_problems(form: Document, encoder: Encoder, *, pairs: bool) -> tuple[list[str], int]:
    """The same with what `encoder` expects around texts, with `pairs` around two; and how many embeddings its ids need.

    Raises KeyError, TypeError or AttributeError where it is no tokenizer.json.
    """
    problems = wordpiece_problems(form)
    if problems and (form.get("model") or {}).get("type") != _KINDS["model"]:
        return problems, 0
    vocabulary: dict[str, int] = form["model"]["vocab"]
    if not problems:
        single, pair = _templates(form.get("post_processor") or {})
        if single != _expected(encoder.single([_FIRST], vocabulary)):
            problems.append(
                f"post_processor: expected {_in_words(encoder.single([_FIRST], vocabulary), vocabulary)} around a text"
            )
        expected = encoder.pair([_FIRST], [_SECOND], vocabulary)
        if pairs and pair != _expected(expected):
            problems.append(f"post_processor: expected {_in_words(expected, vocabulary)} around two texts")
    return problems, _ids(form.get("added_tokens") or [], vocabulary)


def _names(model: dict[str, Any], vocabulary: dict[str, int]) -> Iterator[str]:
    missing = [name for name in (CLS, SEP, PAD, model["unk_token"]) if name not in vocabulary]
    if missing:
        yield f"the vocabulary lacks {', '.join(missing)}: special tokens with other names are not supported"


def _added(added: list[dict[str, Any]], vocabulary: dict[str, int]) -> Iterator[str]:
    """A special token that is typed stays text, so those of the vocabulary need nothing; any other would be found in texts."""
    unknown = [
        repr(token["content"])
        for token in added
        if not token.get("special") or vocabulary.get(token["content"]) != token["id"]
    ]
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        yield f"added tokens that the packaged graph does not support: {', '.join(unknown[:3])}{more}"


def _ids(added: list[dict[str, Any]], vocabulary: dict[str, int]) -> int:
    return max((*vocabulary.values(), *(token["id"] for token in added)), default=-1) + 1


def _expected(read: tuple[list[int], list[int]]) -> Template:
    return tuple(zip(*read, strict=True))


def _in_words(read: tuple[list[int], list[int]], vocabulary: dict[str, int]) -> str:
    """`[CLS] A [SEP] B:1 [SEP]:1`, as Hugging Face writes a template."""
    named = {_FIRST: "A", _SECOND: "B"} | {vocabulary[name]: name for name in (CLS, SEP)}
    return " ".join(
        f"{named[token]}:{segment}" if segment else named[token] for token, segment in _expected(read)
    )


def _templates(processor: dict[str, Any]) -> tuple[Template, Template]:
    """What is put around one text and around two; empty where that is not known."""
    if processor.get("type") == "BertProcessing":
        cls, sep = processor["cls"][1], processor["sep"][1]
        single: Template = ((cls, 0), (_FIRST, 0), (sep, 0))
        return single, (*single, (_SECOND, 1), (sep, 1))
    if processor.get("type") != "TemplateProcessing":
        return (), ()
    special = {name: token["ids"] for name, token in processor["special_tokens"].items()}
    texts = {"A": [_FIRST], "B": [_SECOND]}

    def read(pieces: list[dict[str, Any]]) -> Template:
        found: list[tuple[int, int]] = []
        for piece in pieces:
            (kind, said), *_ = piece.items()
            ids = special[said["id"]] if kind == "SpecialToken" else texts[said["id"]]
            found += [(token, said["type_id"]) for token in ids]
        return tuple(found)

    return read(processor["single"]), read(processor["pair"])
