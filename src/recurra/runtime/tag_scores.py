"""How right tags are, beside the floor: every word's most frequent tag (codec/tag_floor.py).

    spans     precision, recall and F1 over exact spans (conlleval; seqeval mode "strict" in the scheme named), accuracy over words
    plain     accuracy over words, and over the words that the model does not know

The floor's broken spans are read as conlleval reads them, which is to its advantage.
"""

from collections.abc import Sequence

from recurra.codec import tags as codec
from recurra.codec.tag_floor import TagFloor
from recurra.codec.tags import F1, Tags
from recurra.runtime.scored import Scored


def score(
    tags: Tags,
    floor: TagFloor,
    wanted: Sequence[tuple[Sequence[str], Sequence[int]]],
    found: Sequence[Sequence[int]],
    known: set[str],
) -> Scored:
    """Scores of the tags `found` of each sentence; wanted: its words and right tags. known: the words that the model knows."""
    words = sum(len(sentence) for sentence, _ in wanted)
    size = f"{len(wanted)} sentences, {words} words"
    names = [tags.decode(right) for _, right in wanted]
    answers = {
        "model": [tags.decode(answer) for answer in found],
        "most frequent tag": [floor.tags(sentence) for sentence, _ in wanted],
    }
    rows: dict[str, dict[str, float]] = {}
    details = {}
    for row, given in answers.items():
        right = [
            [a == b for a, b in zip(answer, wanted_tags, strict=True)]
            for answer, wanted_tags in zip(given, names, strict=True)
        ]
        accuracy = sum(map(sum, right)) / words
        if tags.scheme == "none":
            unknown = [
                ok
                for (s, _), r in zip(wanted, right, strict=True)
                for w, ok in zip(s, r, strict=True)
                if w not in known
            ]
            rows[row] = {"accuracy": accuracy} | ({"of unknown words": sum(unknown) / len(unknown)} if unknown else {})
            continue
        f1 = F1()
        for answer, wanted_tags in zip(given, names, strict=True):
            f1.add(codec.spans(wanted_tags, tags.source), codec.spans(answer))
        rows[row] = {**f1.scores(), "accuracy": accuracy}
        if row == "model":
            details["types"] = f1.by_type()
            size += f", {f1.wanted.total()} spans (exact, {tags.source}; seqeval strict = conlleval)"
    return Scored(rows, size, details)
