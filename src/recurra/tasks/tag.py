"""Tag: a tag for every word, one by one (parts of speech) or in spans (entities, chunks).

    e_t    = [embedding of the word t, spelling of its letters]        spelling: a character LSTM (Lample et al., 2016), its last state in
    y_t    = core(e)_t                                                 each direction, or CNN (Ma and Hovy, 2016), its largest values
    s_t    = W y_t + b                                                 direction "both"
    s_t    = W [y_t, y_min(t + ahead, T)] + b                          direction "forward": `ahead` words are waited for, then it is decided
    output = s                                                         under a CRF (nn/crf.py), or softmax of s_t

Dropout is variational: one mask a sentence (Gal and Ghahramani, 2016). Words that occur once in the training part are taken for the unknown
word now and then, so that it is learnt what to make of one. Each word of a batch has its letters read once, however often
it stands there.
"""

from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from recurra.codec.tags import Tags
from recurra.codec.text import PADDING, UNKNOWN
from recurra.config import config
from recurra.data.batch import Batch
from recurra.errors import RecipeError
from recurra.nn.crf import CRF
from recurra.nn.encoder import Stack, locked
from recurra.nn.recurrent import LSTM
from recurra.search.viterbi import Chain
from recurra.tasks.task import Core, CoreState, Export, Task, arrays

WINDOW = 3  # letters that a filter of the character CNN sees


@config
class Tag:
    """Tag every word of a sentence: parts of speech, chunks, named entities."""

    scheme: Literal["auto", "none", "IOB2", "BIOES"] = Field(
        default="auto",
        description="how spans are learnt, whatever the scheme of the file; auto: BIOES (ahead = 0: IOB2), none for plain tags",
    )
    repair: bool = Field(
        default=False, description="mend broken tag sequences as conlleval reads them, instead of refusing the file"
    )
    direction: Literal["both", "forward"] = Field(
        default="both", description="how the network reads; forward can stream, word by word"
    )
    ahead: int = Field(default=1, ge=0, description="forward: words that are waited for before a word is tagged")
    crf: bool = Field(default=True, description="learn which tags follow which (CRF); false: each word by itself")
    embedding: int | None = Field(
        default=None, ge=1, description="numbers that stand for a word; none: 100, or as many as the vectors have"
    )
    vectors: str | None = Field(
        default=None,
        description="file of pretrained vectors that the training part's words start from (GloVe, word2vec, fastText .vec)",
    )
    characters: Literal["lstm", "cnn", "none"] = Field(default="lstm", description="how the letters of a word are read")
    letters: int = Field(default=30, ge=1, description="numbers that stand for a letter")
    spelling: int = Field(
        default=50, ge=1, description="units of the character LSTM a direction, or filters of the CNN"
    )
    unknown: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="how often a word that occurs once is taken for an unknown one, in training",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.direction == "both" and self.ahead != 1:
            raise ValueError('the whole sentence is read: ahead needs direction = "forward"')
        return self


class Spelling(nn.Module):
    """The letters of words as a vector each: `size` letters are known."""

    def __init__(self, config: Tag, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, config.letters, padding_idx=PADDING)
        nn.init.uniform_(self.embedding.weight[1:], -0.3, 0.3)
        if config.characters == "lstm":
            self.read: nn.Module = LSTM(config.letters, config.spelling, batch_first=True, bidirectional=True)
            self.outputs = 2 * config.spelling
        else:
            self.read = nn.Linear(WINDOW * config.letters, config.spelling)
            self.outputs = config.spelling

    def forward(self, characters: Tensor) -> Tensor:
        """characters [..., C], each word's letters, then PADDING -> [..., outputs]; zeros where there is no letter."""
        flat = characters.reshape(-1, characters.shape[-1])
        words, place = torch.unique(flat, dim=0, return_inverse=True)
        lengths = (words != PADDING).sum(1)
        words = words[:, : max(1, int(lengths.max()))]
        x = self.embedding(words)
        if isinstance(self.read, nn.Linear):
            edge = x.new_zeros(len(x), 1, x.shape[2])
            seen = torch.cat([torch.cat([edge, x[:, :-1]], 1), x, torch.cat([x[:, 1:], edge], 1)], 2)
            found = self.read(seen).masked_fill((words == PADDING).unsqueeze(2), -torch.inf).amax(1)
            found = torch.where((lengths > 0).unsqueeze(1), found, 0.0)
        else:
            _, (h, _) = self.read(x, lengths=lengths)
            found = torch.cat([h[0], h[1]], 1)
        return found[place].view(*characters.shape[:-1], self.outputs)


class Tagger(Task):
    """The network of `Tag`, for `vocabulary` words, `letters` letters (0: none) and the tags of `tags`.

    once [vocabulary]: truth values, the words that occur once in the training part.
    """

    name = "tag"

    def __init__(
        self,
        config: Tag,
        core: Core,
        *,
        vocabulary: int,
        letters: int,
        tags: Tags,
        once: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.config, self.core_config, self.tags = config, core, tags
        if config.direction == "forward" and tags.source == "BIOES" != tags.scheme:
            raise RecipeError(
                f"the tags of the file, BIOES, can't be said word by word from {tags.scheme}: leave scheme at auto"
            )
        width = config.embedding or 100
        self.words = nn.Embedding(vocabulary, width)
        nn.init.uniform_(self.words.weight, -((3.0 / width) ** 0.5), (3.0 / width) ** 0.5)  # variance 1 / width
        self.spelling = Spelling(config, letters) if config.characters != "none" else None
        width += self.spelling.outputs if self.spelling else 0
        both = config.direction == "both"
        self.forwards = not both
        sizes = (core.hidden,) * core.layers
        self.core = Stack(width, sizes, cell=core.cell, bidirectional=both, dropout=core.dropout)
        self.ahead = 0 if both else config.ahead
        self.read = nn.Linear(self.core.outputs * (2 if self.ahead else 1), len(tags.names))
        self.crf = CRF(*tags.legal())
        self.crf.requires_grad_(config.crf)
        self.once: Tensor
        self.register_buffer(
            "once", torch.as_tensor(np.zeros(vocabulary, bool) if once is None else once), persistent=False
        )
        if core.cell == "lstm":  # remember at first: Jozefowicz et al., 2015
            with torch.no_grad():
                for name, value in self.core.named_parameters():
                    if "bias_ih" in name:
                        value[core.hidden : 2 * core.hidden] += 1.0

    def forward(self, batch: Batch, state: CoreState | None = None) -> tuple[Tensor, CoreState]:
        """Scores [B, T, K] of the words batch.values [B, T] with their letters batch.characters [B, T, C], and no state: a
        sentence never goes on in another batch.
        """
        words, dropout = batch.values, self.core_config.dropout
        if self.training and self.config.unknown:
            hidden = self.once[words] & (torch.rand(words.shape, device=words.device) < self.config.unknown)
            words = words.masked_fill(hidden, UNKNOWN)
        x = self.words(words)
        if self.spelling is not None:
            assert batch.characters is not None  # data/text.py gives them
            x = torch.cat([x, self.spelling(batch.characters)], 2)
        y, _ = self.core(locked(x, dropout, self.training), lengths=batch.lengths)
        if self.ahead:
            steps = torch.arange(y.shape[1], device=y.device) + self.ahead
            later = torch.minimum(steps, (batch.lengths - 1).clamp(min=0).unsqueeze(1))
            y = torch.cat([y, y.gather(1, later.unsqueeze(2).expand_as(y))], 2)
        return self.read(locked(y, dropout, self.training)), ()

    def loss(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) of the negative log-likelihood, over words."""
        count = batch.lengths.sum().to(output.dtype)
        if self.config.crf:
            return self.crf(output, batch.targets, batch.lengths).sum(), count
        valid = torch.arange(output.shape[1], device=output.device) < batch.lengths.unsqueeze(1)
        each = nn.functional.cross_entropy(output.transpose(1, 2), batch.targets, reduction="none")
        return torch.where(valid, each, 0.0).sum(), count

    def error(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) whose ratio is the share of wrong tags, or, for spans, 1 - F1 = (missed + invented) / (wanted + found)."""
        chain = self.chain()
        wrong = count = 0
        for scores, targets, n in zip(
            output.cpu().numpy(), batch.targets.tolist(), batch.lengths.tolist(), strict=True
        ):
            found, _ = chain.online(scores[:n], self.ahead > 0) if self.forwards else chain.best(scores[:n])
            some = self.tags.mistakes(targets[:n], found.tolist())
            wrong, count = wrong + some[0], count + some[1]
        return torch.tensor(float(wrong)), torch.tensor(float(count))

    def chain(self) -> Chain:
        """What decodes: the CRF's weights, -inf where the scheme forbids."""
        weights = arrays(self.crf, "crf")
        parts = zip(("transitions", "start", "end"), self.tags.legal(), strict=True)
        return Chain(*(np.where(allowed, weights[f"crf.{name}"], -np.inf) for name, allowed in parts))

    def export(self) -> Export:
        """The layers as the runtime plays them (runtime/tag.py). The stack's names are those of torch, one number a layer."""
        core = self.core_config
        weights = arrays(self.words, "words") | arrays(self.read, "read") | arrays(self.crf, "crf")
        layers = [
            {"kind": "embedding", "name": "words"},
            {"kind": core.cell, "name": "core", "layers": core.layers, "direction": self.config.direction},
            {"kind": "linear", "name": "read", "ahead": self.ahead},
            {"kind": "chain", "name": "crf"},
        ]
        for k, layer in enumerate(self.core.layers):
            weights |= {name.replace("_l0", f"_l{k}"): value for name, value in arrays(layer, "core").items()}
        if self.spelling is not None:
            weights |= arrays(self.spelling.embedding, "letters") | arrays(self.spelling.read, "spelling")
            kind = self.config.characters
            layers += [{"kind": "embedding", "name": "letters"}, {"kind": kind, "name": "spelling"}]
        return Export(layers, weights)
