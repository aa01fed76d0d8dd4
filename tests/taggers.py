"""Small taggers, trained or not, as task and as player, without files."""

from types import SimpleNamespace

import numpy as np
import torch

from recurra.codec import tags as tag_codec
from recurra.codec import text as text_codec
from recurra.codec.tag_floor import TagFloor
from recurra.codec.text import CharacterView
from recurra.data.batch import Batch
from recurra.runtime.tag import FLOOR, TagModel
from recurra.tasks.tag import Tag, Tagger
from recurra.tasks.task import Core
from recurra.textfile import Sentence

NER = [
    Sentence(tuple(words.split()), tuple(tags.split()))
    for words, tags in [
        ("EU rejects German call", "B-ORG O B-MISC O"),
        ("Peter Blackburn", "B-PER I-PER"),
        ("BRUSSELS 1996-08-22", "B-LOC O"),
        ("The European Commission said on Thursday it disagreed", "O B-ORG I-ORG O O O O O"),
        ("New York Yankees beat Boston Red Sox", "B-ORG I-ORG I-ORG O B-ORG I-ORG I-ORG"),
        ("Rabinovich Peter went home", "B-PER B-PER O O"),
        ("x", "O"),
        ("He lives in South East Asia near Papua New Guinea today", "O O O B-LOC I-LOC I-LOC O B-LOC I-LOC I-LOC O"),
    ]
]
POS = [
    Sentence(tuple(words.split()), tuple(tags.split()))
    for words, tags in [("the dog barks", "DET NOUN VERB"), ("dogs bark loudly", "NOUN VERB ADV"), ("Run", "VERB")]
]
KINDS = {
    "both": Tag(),
    "cnn": Tag(characters="cnn", scheme="IOB2"),
    "words": Tag(characters="none", crf=False),
    "forward": Tag(direction="forward", ahead=2),
    "at once": Tag(direction="forward", ahead=0, characters="cnn"),
    "softmax forward": Tag(direction="forward", crf=False),
}


def build(sentences, config=None, core=None, *, seed=0, spread=0.5):
    """A tagger of random weights (the chain's too), its codecs, and `model()`, its player as it is now."""
    torch.manual_seed(seed)
    config = config or Tag()
    words = [word for s in sentences for word in s.words]
    text = text_codec.fit_words(words, lower=True)
    letters = None if config.characters == "none" else CharacterView.fit(words, width=7)
    tags = tag_codec.fit(
        [s.tags for s in sentences], config.scheme, at_once=config.direction == "forward" and not config.ahead
    )
    once = np.bincount(text.encode_words(words), minlength=text.size) == 1
    task = Tagger(
        config,
        core or Core(cell="lstm", hidden=9, layers=2, dropout=0.3),
        vocabulary=text.size,
        letters=letters.size if letters else 0,
        tags=tags,
        once=once,
    )
    with torch.no_grad():
        for part in task.crf.parameters():
            part.copy_(torch.randn(part.shape) * spread)
        task.words.weight *= 5

    def model():
        export = task.eval().export()
        manifest = {
            "task": "tag",
            "codec": {
                "words": text.manifest(),
                "letters": letters and letters.model_dump(mode="json"),
                "tags": tags.model_dump(mode="json"),
                "columns": {"word": None, "tag": None, "encoding": "utf-8"},
                "repair": config.repair,
            },
            "layers": export.layers,
        }
        floor = TagFloor.fit((s.words, s.tags) for s in sentences)
        files = {**text.to_files(), FLOOR: floor.model_dump_json()}
        return TagModel(manifest, export.weights, "d" * 64, files)

    def batch(some):
        lengths = [len(s.words) for s in some]
        shape = len(some), max(lengths)
        values, targets = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
        characters = None if letters is None else torch.zeros(*shape, letters.width, dtype=torch.int64)
        for i, s in enumerate(some):
            n = lengths[i]
            values[i, :n] = torch.from_numpy(text.encode_words(s.words)).long()
            if s.tags is not None:
                targets[i, :n] = torch.tensor(tags.encode(s.tags, "x", repair=True))
            if characters is not None:
                characters[i, :n] = torch.from_numpy(letters.encode(s.words)).long()
        return Batch(values, torch.tensor(lengths), targets, torch.ones(shape), characters=characters)

    return SimpleNamespace(task=task, text=text, tags=tags, letters=letters, model=model, batch=batch)


def random_sentences(n, seed=0, longest=12):
    """Sentences of known, unknown and odd words."""
    rng = np.random.default_rng(seed)
    words = ["EU", "Peter", "New", "york", "said", "Zyx", "a", "Ünïcödé", "1996-08-22", "x" * 40, "in", "Asia", ""]
    return [[words[k] for k in rng.integers(0, len(words), rng.integers(1, longest))] for _ in range(n)]
