"""Whether a base model can be packaged, told by its config.json and tokenizer.json before anything is trained.

The packaged graph is BERT's encoder and BERT's tokenizer, and nothing else: what it does not know would be served wrong
without a word, or be found out when the night's training is over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from reshelve.compression.form import Distil
from reshelve.errors import MisfitError
from reshelve.rankers import Kind, Ranker
from reshelve.training.base_home import BASE
from reshelve.training.form import Architecture, base_architecture

CLS, SEP, PAD = "[CLS]", "[SEP]", "[PAD]"
_KINDS = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer", "model": "WordPiece"}
_ACTIVATION = "gelu"  # the exact one, which is how graph and quantized products write it


@dataclass(frozen=True)
class TokenizerFacts:
    """What of a tokenizer.json the graph does not know, and how many embeddings its ids need."""

    problems: tuple[str, ...]
    pair_problem: str  # of rankers that read two texts at once
    ids: int


def check_base(ranker: Ranker, home: Path) -> None:
    """Raise MisfitError with the ranker's key and what of the base in `home` does not fit."""
    known = facts(home / "tokenizer.json")
    together = ranker.kind is Kind.PAIR and not ranker.model.towers
    pair_problem = known.pair_problem if ranker.kind is Kind.PAIR else ""
    for problem in (*known.problems, pair_problem):
        if problem:
            said = f"{ranker.model.base} cannot be packaged: tokenizer.json: {problem}"
            raise MisfitError(BASE, said, "expected BERT's own tokenizer: see docs/how-to/add-a-ranker.md")
    whole = base_architecture(home, ranker.model.max_length)
    for problem in _encoder(home, whole, known.ids, together):
        said = f"{ranker.model.base} cannot be packaged: config.json: {problem}"
        raise MisfitError(BASE, said, "expected BERT's own encoder: see docs/how-to/add-a-ranker.md")
    _check_layers(ranker, whole.num_hidden_layers)


def facts(path: Path) -> TokenizerFacts:
    """Those of a tokenizer.json. Raises MisfitError where it is no JSON."""
    found = path.stat()
    return _facts(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=16)  # DAG files read the same few bases for ranker after ranker
def _facts(path: Path, changed: int, size: int) -> TokenizerFacts:
    try:
        return tokenizer_facts(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"{path}: no tokenizer.json that can be read"
        raise MisfitError(BASE, said, f"{type(error).__name__}: {error}") from error


def tokenizer_facts(form: dict[str, Any]) -> TokenizerFacts:
    """The same of a parsed tokenizer.json. Raises KeyError, TypeError where it is none."""
    kinds = {part: (form.get(part) or {}).get("type") for part in _KINDS}
    if kinds != _KINDS:
        wrong = [
            f"{part} {kinds[part]}, expected {_KINDS[part]}" for part in _KINDS if kinds[part] != _KINDS[part]
        ]
        return TokenizerFacts((", ".join(wrong),), "", 0)
    vocabulary: dict[str, int] = form["model"]["vocab"]
    added = form.get("added_tokens") or []
    problems = [*_names(form["model"], vocabulary), *_added(added, vocabulary)]
    if not problems:
        cls, sep = vocabulary[CLS], vocabulary[SEP]
        single, pair = _templates(form.get("post_processor") or {})
        if single != ((cls, 0), ("A", 0), (sep, 0)):
            problems.append(f"post_processor: expected {CLS} A {SEP} around a text")
        if pair != ((cls, 0), ("A", 0), (sep, 0), ("B", 1), (sep, 1)):
            pair_problem = f"post_processor: expected {CLS} A {SEP} B:1 {SEP}:1 around two texts"
            return TokenizerFacts(tuple(problems), pair_problem, _ids(added, vocabulary))
    return TokenizerFacts(tuple(problems), "", _ids(added, vocabulary))


def _names(model: dict[str, Any], vocabulary: dict[str, int]) -> Iterator[str]:
    missing = [name for name in (CLS, SEP, PAD, model["unk_token"]) if name not in vocabulary]
    if missing:
        yield f"the vocabulary lacks {', '.join(missing)}: special tokens by other names are not known"


def _added(added: list[dict[str, Any]], vocabulary: dict[str, int]) -> Iterator[str]:
    """A special token that is typed stays text, so those of the vocabulary need nothing; any other would be found in texts."""
    unknown = [
        repr(token["content"])
        for token in added
        if not token.get("special") or vocabulary.get(token["content"]) != token["id"]
    ]
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        yield f"added tokens that the packaged graph does not know: {', '.join(unknown[:3])}{more}"


def _ids(added: list[dict[str, Any]], vocabulary: dict[str, int]) -> int:
    return max((*vocabulary.values(), *(token["id"] for token in added)), default=-1) + 1


Template = tuple[tuple[int | str, int], ...]  # of token ids and texts, each with its type


def _templates(processor: dict[str, Any]) -> tuple[Template, Template]:
    """What is put around one text and around two; empty where that is not known."""
    if processor.get("type") == "BertProcessing":
        cls, sep = processor["cls"][1], processor["sep"][1]
        single: Template = ((cls, 0), ("A", 0), (sep, 0))
        return single, (*single, ("B", 1), (sep, 1))
    if processor.get("type") != "TemplateProcessing":
        return (), ()
    special = {name: token["ids"] for name, token in processor["special_tokens"].items()}

    def read(pieces: list[dict[str, Any]]) -> Template:
        found: list[tuple[int | str, int]] = []
        for piece in pieces:
            (kind, said), *_ = piece.items()
            ids = special[said["id"]] if kind == "SpecialToken" else [said["id"]]
            found += [(token, said["type_id"]) for token in ids]
        return tuple(found)

    return read(processor["single"]), read(processor["pair"])


def _encoder(home: Path, encoder: Architecture, ids: int, together: bool) -> Iterator[str]:
    if encoder.hidden_act != _ACTIVATION:
        yield f"hidden_act {encoder.hidden_act}, expected {_ACTIVATION}"
    if ids > encoder.vocab_size:
        yield f"vocab_size {encoder.vocab_size}, but the tokenizer's ids go to {ids - 1}: its embeddings were not resized"
    if together and encoder.type_vocab_size < 2:
        yield f"type_vocab_size {encoder.type_vocab_size}, but a pair needs two: read its texts apart (model.towers: true)"
    if encoder.hidden_size % encoder.num_attention_heads:
        yield f"hidden_size {encoder.hidden_size} is no multiple of num_attention_heads {encoder.num_attention_heads}"
    if json.loads((home / "config.json").read_text()).get("pruned_heads"):
        yield "pruned_heads, expected all of them"


def _check_layers(ranker: Ranker, layers: int) -> None:
    """Those that the ranker file names, which its form cannot know."""
    kept = ranker.model.layers
    if kept is not None and kept > layers:
        raise MisfitError("model.layers", f"{kept} is more than the base model's {layers} layers")
    searched = ranker.search.space.get("model.layers")
    if searched and max(map(float, searched.values)) > layers:
        raise MisfitError("search.space", f"model.layers: expected at most the base model's {layers} layers")
    for step in ranker.compression.steps:
        if isinstance(step, Distil) and step.layers >= (kept or layers):
            said = f"distil to {step.layers} layers: expected fewer than the model's {kept or layers}"
            raise MisfitError("compression.steps", said)
