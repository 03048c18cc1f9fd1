"""The ranker: an encoder, one pooled vector, and a head that answers for its kind.

- pairs of texts: logit = head(pooled) + beside(features), one number per (left text, right text); with `towers`
  logit = beside(features, cos(pooled left, pooled right)).
- over a catalogue: logits = W·ReLU(h(pooled)) + b, one number per item of the catalogue; or by the items' titles (`title_head`).

On disk a model is `model.json` (its form) and `model.safetensors`; nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from reshelve.errors import ConfigurationError, DataError
from reshelve.files import whole
from reshelve.kind_registry import kind_of
from reshelve.model.description import ModelForm, read_form, write_form
from reshelve.model.encoders.base import Encoder
from reshelve.model.encoders.registry import encoder_for
from reshelve.model.ranker_form import ranker_form
from reshelve.training.encoders.base import TorchEncoder
from reshelve.training.title_head import TitleHead

# How many nats one typical unit of text similarity is worth against log popularity before any training.
SIMILARITY_SCALE = 20.0
# Added to every item's count, so that an item without events still has a finite log popularity.
POPULARITY_PRIOR = 1.0


class RankerModel(nn.Module):
    """The network of one ranker, with random weights: see `load` and `initialise` for those that mean something."""

    def __init__(self, form: ModelForm) -> None:
        super().__init__()
        self.form = form
        width = form.architecture.hidden_size
        self.family = encoder_for(form)
        self.encoder: TorchEncoder = self.family.build_torch(form.architecture)
        columns = len(form.features) + form.towers
        self.beside = Beside(columns) if columns else None
        if form.towers:
            assert self.beside
            self.beside.read_cosine()
        elif not kind_of(form.kind).scores_catalogue:
            self.head = nn.Linear(width, 1)
        else:
            if not form.items:
                raise DataError("the catalogue is empty", f"a {form.kind} ranker needs items to choose from")
            self.items: nn.Linear | TitleHead
            if form.vector_size is None:
                self.hidden = nn.Linear(width, 2 * width)
                self.items = nn.Linear(2 * width, form.items)
            else:
                self.items = TitleHead(width, form.vector_size, form.items)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        features: Tensor | None = None,
    ) -> Tensor:
        """Token ids [B, T] → logits: [B] of pairs, [B, C] over the catalogue.

        `token_type_ids` [B, T]: 1 for tokens of a pair's second text, which towers need; `features` [B, F] where the form
        names any.
        """
        if self.form.towers and self.beside is not None and token_type_ids is not None:
            columns = [self._cosine(input_ids, attention_mask, token_type_ids)[:, None]]
            if self.form.features and features is not None:
                columns.insert(0, features)
            return self.beside(torch.cat(columns, dim=1))
        pooled = self.pooled(input_ids, attention_mask, token_type_ids)
        if self.form.items is None:
            logits = self.head(pooled).squeeze(-1)
            return logits if self.beside is None else logits + self.beside(features)
        return self.items(pooled if self.form.vector_size else torch.relu(self.hidden(pooled)))

    @property
    def pad_id(self) -> int:
        """The token that fills a batch."""
        return self.family.pad_id(self.form.architecture)

    def pooled(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Token ids [B, T] → one vector per text [B, H]: the first token's state, or the mean of the real tokens'."""
        if self.form.pooling == "cls":
            return self.encoder.first_state(input_ids, attention_mask, token_type_ids)
        states = self.encoder.states(input_ids, attention_mask, token_type_ids)
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1).clamp(min=1)

    def _cosine(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """[CLS] left [SEP] right [SEP] → cosine [B] of the vectors of [CLS] left [SEP] and of [CLS] right [SEP], float32."""
        of_right = (token_type_ids * attention_mask).sum(1)
        of_left = attention_mask.sum(1) - of_right
        place = torch.arange(input_ids.shape[1], device=input_ids.device)
        left = place[: int(of_left.max())]
        right = place[: int(of_right.max())]
        shifted = (of_left[:, None] + right).clamp(max=input_ids.shape[1] - 1)
        first = input_ids[:, :1]
        texts = (
            (input_ids[:, : len(left)], left < of_left[:, None]),
            (
                torch.cat([first, input_ids.gather(1, shifted)], dim=1),
                torch.cat([torch.ones_like(first), right < of_right[:, None]], dim=1),
            ),
        )
        one, other = (self.pooled(ids, present.to(attention_mask.dtype)).float() for ids, present in texts)
        return F.cosine_similarity(one, other, dim=1)

    @classmethod
    def load(cls, directory: Path) -> RankerModel:
        """The model saved in `directory`, in evaluation mode. Raises DataError where the files do not fit each other."""
        model = cls(read_form(directory))
        try:
            model.load_state_dict(load_file(directory / "model.safetensors"))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise DataError(f"{directory}: model.safetensors does not fit model.json", str(error)) from error
        return model.eval()

    def save(self, directory: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write `model.safetensors` (`weights`, or its own) and, last, `model.json`; each appears whole."""
        directory.mkdir(parents=True, exist_ok=True)
        weights = self.state_dict() if weights is None else weights
        tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        with whole(directory / "model.safetensors") as partial:
            save_file(tensors, partial)
        write_form(directory, self.form)

    @classmethod
    def initialise(
        cls,
        base: Path,
        *,
        kind: str,
        pooling: Literal["cls", "mean"],
        max_length: int,
        layers: int | None = None,
        titles: Sequence[str] | None = None,
        events: Sequence[int] | None = None,
        features: tuple[str, ...] = (),
        towers: bool = False,
        vector_size: int | None = None,
        index_size: int | None = None,
        seed: int = 17,
    ) -> RankerModel:
        """A ranker on the pretrained encoder in `base`, before any training.

        pair: a small random head. next_item: `titles` and `events` (counts) of the catalogue, in the order of its
        indices, make the logits at step 0 exactly `scale · pooled·E + log popularity`, where E are the normalised
        embeddings of the titles: hidden = [I; -I] and W = [E, -E], because relu(x) - relu(-x) = x.
        Raises ConfigurationError for an encoder that is not known.
        """
        form = ranker_form(
            base,
            kind=kind,
            pooling=pooling,
            max_length=max_length,
            layers=layers,
            items=len(titles or ()) if kind_of(kind).scores_catalogue else None,
            features=features,
            towers=towers,
            vector_size=vector_size,
            index_size=index_size,
        )
        torch.manual_seed(seed)
        model = cls(form)
        model.encoder.load_state_dict(_encoder_weights(base, model.family, set(model.encoder.state_dict())))
        model.eval()
        with torch.no_grad():
            if towers:
                pass  # the cosine of pretrained vectors says something before any training
            elif form.items is None:
                model.head.weight.normal_(std=0.02)
                model.head.bias.zero_()
            else:
                model._start_from_titles(base, list(titles or ()), list(events or ()))
        return model

    def _start_from_titles(self, base: Path, titles: list[str], events: list[int]) -> None:
        self.items.bias.copy_(log_popularity(events or [0] * len(titles)))
        if isinstance(self.items, TitleHead):
            return  # vectors are worked out before they are read
        self.items.weight.copy_(rows_of_titles(self, base, titles))
        identity = torch.eye(self.form.architecture.hidden_size)
        self.hidden.weight.copy_(torch.cat([identity, -identity]))
        self.hidden.bias.zero_()


class Beside(nn.Module):
    """Features [B, F] → what they add to the logit [B]: a·x + v·silu(A x + c) of the standardised features.

    It begins as 0 for every row. An odd value counts as CLIP deviations.
    """

    CLIP = 8.0
    HIDDEN = 64
    COSINE = (0.4, 0.2)  # about the mean and deviation between a query and the titles it is shown with
    mean: Tensor
    deviation: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.linear = nn.Linear(features, 1, bias=False)
        self.hidden = nn.Linear(features, self.HIDDEN)
        self.output = nn.Linear(self.HIDDEN, 1, bias=False)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.output.weight)

    def standardise(self, features: Tensor) -> None:
        """Take mean and deviation of the first columns from the training examples' features [N, F]."""
        columns = features.shape[1]
        self.mean[:columns] = features.mean(0)
        self.deviation[:columns] = features.std(0, correction=0).clamp(min=1e-3)

    def read_cosine(self) -> None:
        """Make the last column a cosine: what is near counts from the start, and a gradient reaches the encoder."""
        with torch.no_grad():
            self.mean[-1], self.deviation[-1] = self.COSINE
            self.linear.weight[0, -1] = 1.0

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] → [B], in float32 whatever the encoder runs in."""
        with torch.autocast(features.device.type, enabled=False):
            x = ((features - self.mean) / self.deviation).clamp(-self.CLIP, self.CLIP)
            return (self.linear(x) + self.output(F.silu(self.hidden(x)))).squeeze(-1)


def rows_of_titles(model: RankerModel, base: Path, titles: Sequence[str]) -> Tensor:
    """next_item: the softmax's rows [E, -E] for items known by their titles alone [N, 2H]."""
    embedded = embed(model, base, titles)
    lengths = embedded.norm(dim=1, keepdim=True).clamp(min=1e-6)
    # Pooled states are not normalised; their typical length is taken out, so that a score is scale · cosine.
    items = embedded / lengths * (SIMILARITY_SCALE / lengths.mean())
    return torch.cat([items, -items], dim=1)


def log_popularity(events: Sequence[int]) -> Tensor:
    """The log of each item's share of all events [N]; an item without any has a finite one too."""
    counts = torch.tensor(events, dtype=torch.float32) + POPULARITY_PRIOR
    return torch.log(counts / counts.sum())


def embed(model: RankerModel, base: Path, texts: Sequence[str], batch: int = 128) -> Tensor:
    """Pooled vectors [N, H] of `texts`, tokenised with the base model's own tokenizer."""
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.form.max_length)
    tokens = [encoded.ids for encoded in tokenizer.encode_batch(list(texts))]
    vectors = torch.empty(len(tokens), model.form.architecture.hidden_size)
    order = sorted(
        range(len(tokens)), key=lambda index: len(tokens[index])
    )  # like lengths together: little padding
    with torch.no_grad():
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            input_ids, mask = pad([tokens[index] for index in chosen], model.pad_id)
            vectors[chosen] = model.pooled(input_ids, mask)
    return vectors


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ragged token ids → (ids [B, T], attention mask [B, T]), T being the longest row."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.as_tensor(row)
        mask[place, : len(row)] = 1
    return ids, mask


def _encoder_weights(base: Path, encoder: Encoder, wanted: set[str]) -> dict[str, Tensor]:
    """The encoder's tensors out of the base's safetensors, whatever heads and prefixes they were saved with."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(base.glob("*.safetensors")):
        try:
            tensors.update(load_file(path))
        except (OSError, SafetensorError) as error:
            raise ConfigurationError(f"model.base: {path} is not a safetensors file", str(error)) from error
    found = {encoder.own_name(name): value.float() for name, value in tensors.items()}
    missing = sorted(wanted - set(found))
    if missing:
        raise ConfigurationError(
            f"model.base: {base} lacks the encoder's weights",
            f"missing: {', '.join(missing[:3])} ({len(missing)} in all)",
        )
    return {name: found[name] for name in wanted}
