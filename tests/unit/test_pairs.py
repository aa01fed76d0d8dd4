"""Pairs of texts: what is read, what is dropped and said, parts that never leak, ids there and back, batches by tokens."""

import gzip
import json
import os
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recurra.codec import text as text_codec
from recurra.codec.pairs import TARGET_FILE, PairCodec
from recurra.codec.tokenizer import PADDING, UNKNOWN
from recurra.codec.words import unknown, word_index, words
from recurra.data import buckets
from recurra.data.buckets import PairBuckets, stored
from recurra.data.pairs import Pairs, Summaries, encoded
from recurra.errors import DataError, ModelFileError, RecipeError, UnsupportedError
from recurra.pairfile import Pair, pairs

DATA = Path(os.environ.get("RECURRA_DATA", "/nowhere"))
GERMAN = ["Zwei Männer fällen Bäume.", "Die Straße ist naß, schön!", "Ein Mädchen übt Öl­malerei."]
JAPANESE = ["二 人 の 男 が 木 を 切る 。", "道 は 濡れ て い る 。", "少女は油絵を描く。"]
PAIRS = [Pair(*both) for both in zip(GERMAN, JAPANESE, strict=True)]


def needs(name):
    return pytest.mark.skipif(not (DATA / name).is_dir(), reason=f"RECURRA_DATA names no folder with {name}")


def refused(said, call, *args, kind=DataError, **options):
    with pytest.raises(kind) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert said in message, message


def read(*args, **options):
    return list(pairs(*args, **options))


@pytest.fixture
def files(tmp_path):
    """Writes two files of plain text, and gives their paths."""

    def write(source, target, encoding="utf-8"):
        paths = tmp_path / "t.de", tmp_path / "t.ja"
        for path, lines in zip(paths, (source, target), strict=True):
            path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
        return paths

    return write


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_two_files_line_by_line(files, tmp_path):
    source, target = files([f"  {line}\t" for line in GERMAN], JAPANESE)
    assert read(source, target) == read(str(source), str(target)) == PAIRS
    assert read(*files(GERMAN, JAPANESE, "utf-16"), encoding="utf-16") == PAIRS
    for path, lines, end in ((tmp_path / "g.de.gz", GERMAN, "\r\n"), (tmp_path / "g.ja.gz", JAPANESE, "\n")):
        path.write_bytes(gzip.compress(end.join(lines).encode()))  # the last line has no end
    assert read(tmp_path / "g.de.gz", tmp_path / "g.ja.gz") == PAIRS


def test_two_columns_of_any_table(tmp_path):
    frame = pl.DataFrame({"n": [1, 2, 3], "source": GERMAN, "target": JAPANESE})
    for name in ("t.csv", "t.csv.gz", "t.jsonl", "t.jsonl.gz", "t.parquet", "t.tsv"):
        path = tmp_path / name
        if name == "t.parquet":
            frame.write_parquet(path)
        elif "csv" in name or "tsv" in name:
            text = frame.write_csv(separator="\t" if "tsv" in name else ";", quote_style="never").encode()
            path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        else:
            text = frame.write_ndjson().encode()
            path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        assert read(path) == PAIRS, name
    for given in (frame, frame.lazy(), frame.to_pandas(), frame.to_arrow()):
        assert read(given) == PAIRS
    back = read(frame, source_column="target", target_column="source")
    assert back == [Pair(b, a) for a, b in PAIRS]
    quoted = tmp_path / "q.csv"
    quoted.write_text('source,target\n"two\nlines, one cell",x\n', encoding="utf-8")
    assert read(quoted) == [Pair("two\nlines, one cell", "x")]
    many = pl.DataFrame({"source": [f"s{i}" for i in range(2500)], "target": [f"t{i}" for i in range(2500)]})
    assert read(many) == [Pair(f"s{i}", f"t{i}") for i in range(2500)]  # several blocks


def test_pairs_with_an_empty_side_are_dropped_with_one_warning(files):
    source, target = files(["a", "  ", "c", "d", "\u3000"], ["1", "2", "", "4", "\t"])
    with pytest.warns(RuntimeWarning) as caught:
        assert read(source, target) == [Pair("a", "1"), Pair("d", "4")]
    assert [str(w.message) for w in caught] == [
        f"3 pair(s) with an empty side are left out, the first: {source}, line 2"
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read(source, target, quiet=True)) == 2
        assert read(*files(["a"], ["b"])) == [Pair("a", "b")]
    source, target = files(["a", "b"], ["1", ""])
    with pytest.warns(RuntimeWarning, match=rf"1 pair.*{target}, line 2"):
        read(source, target)
    frame = pl.DataFrame({"source": ["a", "b", None], "target": ["1", None, "3"]})
    with pytest.warns(RuntimeWarning, match=r"2 pair\(s\).*the table, row 2, column 'target'"):
        assert read(frame) == [Pair("a", "1")]
    refused("no pair has a text on both sides", read, *files(["a", ""], ["", "b"]))
    refused("t.de and ", read, *files([""], [""]))
    refused("no pair has a text", read, frame.head(0))
    refused("no pair has a text", read, frame.tail(1))


def test_files_that_part(files):
    source, target = files(["a", "b", "c"], ["1", "2"])
    refused(f"{target} ends at line 2, but {source} has 3 lines", read, source, target)
    source, target = files(["a"], ["1", "2", "3", ""])
    refused(f"{source} ends at line 1, but {target} has 4 lines", read, source, target)
    refused("ends at line 1", Pairs(source, target=target).parts)


def test_what_is_no_pair_of_sources(files, tmp_path):
    source, target = files(GERMAN, JAPANESE)
    table = tmp_path / "t.csv"
    table.write_text("source,target\na,b\n")
    for one, other in ((table, target), (source, table), (tmp_path / "t.jsonl.gz", target)):
        refused("is a table, which holds both sides", read, one, other)
    refused("a frame is a table", read, pl.DataFrame({"source": ["a"]}), target)
    refused("is plain text, one side of the pairs: name the file of the other", read, source)
    refused("did you mean 't.de'?", read, tmp_path / "t.dee")
    refused("did you mean 't.ja'?", read, source, tmp_path / "t.jaa")
    refused("is a folder", read, tmp_path, target)
    refused("has no column 'target': did you mean 'targets'?", read, pl.DataFrame({"source": ["a"], "targets": ["b"]}))
    refused(f"{table} has no column 'src'", read, table, source_column="src")
    refused("holds Int64, not text", read, pl.DataFrame({"source": ["a"], "target": [1]}))
    refused("is empty", read, source, Path(files(GERMAN, [])[1]))


def test_wrong_encodings(files, tmp_path):
    source, target = files(GERMAN, GERMAN, "latin-1")
    refused(f"{source}, line 1: byte 0xE4 is no text in utf-8: convert it", read, source, target)
    assert read(source, target, encoding="latin-1") == [Pair(line, line) for line in GERMAN]
    (tmp_path / "l.csv").write_bytes("source,target\na,b\nä,b\n".encode("latin-1"))
    refused("l.csv is not UTF-8 text (line 3)", read, tmp_path / "l.csv")
    refused("there is no encoding 'utf-9'", read, source, target, encoding="utf-9")


# ---- configs and parts -----------------------------------------------------------------------------------------------


def test_options_that_contradict():
    refused("both 'text': name two columns", Pairs, "x", source_column="text", target_column="text", kind=RecipeError)
    refused("goes with a validation file", Pairs, "x", validation_target="v", kind=RecipeError)
    refused("did you mean 'target'?", Pairs, "x", targets="v", kind=RecipeError)
    refused("longest", Pairs, "x", longest=0, kind=RecipeError)
    for cls in (Pairs, Summaries):
        own = set(cls.__annotations__)
        assert len(own) <= 12
        assert all(field.description for field in cls.__pydantic_fields__.values())
        assert set(cls("x").columns) <= {"source_column", "target_column", "encoding"}


def test_equal_sources_are_all_in_one_part():
    rng = np.random.default_rng(0)
    forms = [(lambda s: s), str.upper, (lambda s: s.replace(" ", "  ") + " ")]
    sources = [forms[i % 3](f"Source number {k}") for i, k in enumerate(rng.integers(0, 60, 500))]
    frame = pl.DataFrame({"source": sources, "target": [f"target {i}" for i in range(500)]})
    drawn = []
    for seed in range(4):
        train, valid = Pairs(frame, validation=0.2).parts(seed)
        inside, outside = ({" ".join(pair.source.split()).lower() for pair in part} for part in (train, valid))
        assert not inside & outside
        assert (len(inside), len(outside)) == (48, 12)
        assert sorted(pair.target for part in (train, valid) for pair in part) == sorted(frame["target"])
        assert list(valid) == list(valid) == list(Pairs(frame, validation=0.2).parts(seed)[1])
        drawn.append(frozenset(outside))
    assert len(set(drawn)) == 4


def test_parts_warn_once_and_read_anew(files, tmp_path):
    source, target = files([*(f"s{i}" for i in range(20)), ""], [*(f"t{i}" for i in range(20)), "x"])
    data = Pairs(source, target=target, validation=0.25)
    with pytest.warns(RuntimeWarning) as caught:
        train, valid = data.parts()
    assert len(caught) == 1
    for _ in range(2):
        assert [len(list(part)) for part in (train, valid)] == [15, 5]
    with pytest.warns(RuntimeWarning) as caught:
        train, valid = Pairs(source, target=target, validation=source, validation_target=target).parts()
    assert len(caught) == 2  # one a source
    assert list(train) == list(valid)
    with pytest.warns(RuntimeWarning):
        assert Pairs(source, target=target, validation=0).parts()[1] is None
    with pytest.warns(RuntimeWarning):
        refused("is plain text, one side", Pairs(source, target=target, validation=source).parts)
    refused("1 pair(s) are too few to keep 0.1", Pairs(pl.DataFrame({"source": ["a"], "target": ["b"]})).parts)
    table = pl.DataFrame({"document": ["a", "b"], "summary": ["c", "d"]})
    train, valid = Summaries(table, validation=table.head(1)).parts()
    assert (list(train), list(valid)) == ([Pair("a", "c"), Pair("b", "d")], [Pair("a", "c")])


# ---- codecs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("unit", ["bpe", "unigram", "words", "characters"])
def test_there_and_back_and_through_the_files(unit, joint):
    codec = Pairs("x", unit=unit, joint=joint, vocabulary=400 if unit in ("bpe", "unigram") else None).fit(PAIRS)
    assert codec.joint == joint
    assert codec.end == codec.target.size == codec.vocabulary - 1
    manifest, kept = json.loads(json.dumps(codec.manifest())), codec.to_files()
    assert set(kept) == ({"tokenizer.json"} if joint else {"tokenizer.json", TARGET_FILE})
    again = PairCodec.read(manifest, kept.__getitem__)
    assert again.joint == joint
    assert (again.manifest(), again.to_files()) == (codec.manifest(), kept)
    for made in (codec, again):
        sources, targets = list(made.sources(GERMAN)), list(made.targets(JAPANESE))
        for ids, text in zip(sources, GERMAN, strict=True):
            assert ids.dtype == np.int32
            assert ids[-1] == made.source.size
            assert (ids[:-1] < made.source.size).all()
            assert made.source.decode(ids[:-1]) == made.source.normal(text)
        for ids, text in zip(targets, JAPANESE, strict=True):
            assert ids.dtype == np.int32
            assert np.flatnonzero(ids == made.end).tolist() == [len(ids) - 1]
            assert made.decode(ids) == made.decode(ids[:-1]) == text
            assert made.decode([*ids, 3, 4]) == text  # what is behind END is not read
    if not joint:
        refused(f"{TARGET_FILE} holds", PairCodec.read, manifest | {"target": manifest["target"] | {"size": 7}},
                kept.__getitem__, kind=ModelFileError)  # fmt: skip
    refused("there is no token", codec.decode, [codec.vocabulary])


def test_a_long_source_is_cut():
    codec = Pairs("x", unit="words", longest=2).fit(PAIRS)
    ids = next(codec.sources(["Zwei Männer fällen Bäume."]))
    assert ids.tolist() == [*codec.source.encode("Zwei Männer"), codec.source.size]
    assert len(codec.copies("Zwei Männer fällen Bäume.")[0]) == 3
    assert len(next(codec.targets(JAPANESE))) == 10
    assert PairCodec.read(codec.manifest(), codec.to_files().__getitem__).longest == 2


def test_separate_codecs_know_their_own_side_alone():
    codec = Pairs("x", unit="words", joint=False, minimum=1).fit([Pair("a b", "c"), Pair("a", "d")])
    assert [codec.source.token(i) for i in range(2, codec.source.size)] == ["a", "b"]
    assert [codec.target.token(i) for i in range(2, codec.target.size)] == ["c", "d"]
    assert (codec.source.size, codec.end) == (4, 4)
    both = Pairs("x", unit="words").fit([Pair("a b", "c"), Pair("a", "d")])
    assert both.vocabulary == 7
    refused("no text to learn from", Pairs("x").fit, [])


# ---- words of tokens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["bpe", "unigram", "characters"])
@pytest.mark.parametrize("text", [*GERMAN, *JAPANESE, " a  b\u3000c \n", "", "  ", "🎉🧵 🎉", "e\u0301 Å"])
def test_each_token_is_part_of_its_word(unit, text):
    codec = text_codec.fit([*GERMAN, *JAPANESE], unit=unit, vocabulary=300 if unit != "characters" else None)
    if unit == "characters":
        codec = text_codec.fit([text or "a", "x"], unit=unit)
    ids, found = codec.encode(text), words(codec, text)
    index = word_index(codec, ids)
    assert index.dtype == np.int32
    assert index.shape == ids.shape
    assert (np.diff(index) >= 0).all()
    assert found == codec.normal(text).split()
    if found:
        assert sorted(set(index.tolist())) == list(range(len(found)))
    for k, word in enumerate(found):
        assert codec.decode(ids[index == k]).strip() == word  # the tokens of a word spell it, and nothing else


def test_words_are_their_own_tokens():
    codec = text_codec.fit(["It's new, new"], unit="words", split="punctuation", lower=True)
    text = "It's NEW, York"
    assert words(codec, text) == ["it's", "new", ",", "york"]
    assert word_index(codec, codec.encode(text)).tolist() == [0, 1, 2, 3]
    refused("there is no token", word_index, text_codec.fit(["ab"], unit="characters"), [9])
    refused("not int", words, codec, 5)


# ---- the pointer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("joint", [True, False])
def test_extended_ids_by_hand(joint):
    codec = Pairs("x", unit="words", lower=True, joint=joint).fit([Pair("the cat sat", "the cat sat")])
    cat, sat, the = (int(codec.target.encode(word)[0]) for word in ("cat", "sat", "the"))
    v = codec.vocabulary
    assert (codec.end, v) == (5, 6)
    ids, extra = codec.copies("The Dog sat , the bird sat dog")
    assert ids.dtype == np.int32
    assert ids.tolist() == [the, v, sat, v + 1, the, v + 2, sat, v, codec.end]
    assert extra == ["dog", ",", "bird"]
    assert next(codec.sources(["The Dog sat , the bird sat dog"])).tolist() == [
        the, UNKNOWN, sat, UNKNOWN, the, UNKNOWN, sat, UNKNOWN, codec.end
    ]  # fmt: skip
    target = codec.copied("The bird , a dog cat", extra)
    assert target.dtype == np.int32
    assert target.tolist() == [the, v + 2, v + 1, UNKNOWN, v, cat, codec.end]
    assert codec.decode(target, extra) == "the bird , <unk> dog cat"
    assert codec.decode([PADDING, *target.tolist(), v], extra) == "the bird , <unk> dog cat"
    assert codec.copied("a dog", []).tolist() == [UNKNOWN, UNKNOWN, codec.end]
    assert [codec.token(i, extra) for i in (UNKNOWN, cat, codec.end, v)] == ["<unk>", "cat", "</s>", "dog"]
    refused("the document has 3 word(s) of its own, from 6 on", codec.decode, [v + 3], extra)
    assert codec.copies("the cat")[1] == []


@pytest.mark.parametrize("unit", ["words", "characters", "bpe", "unigram"])
def test_a_text_is_unknown_where_no_letter_of_it_is_known(unit):
    codec = text_codec.fit(
        ["ein Hund schläft , auf - dem Gras !"] * 9,
        unit=unit,
        vocabulary=None if unit in ("words", "characters") else 300,
    )
    dark = {
        text: unknown(codec, codec.encode(text)) for text in ("漢字 漢字", "漢字 !", "漢字 Hund", "Hund !", "!", "")
    }
    assert [text for text, said in dark.items() if said] == ["漢字 漢字", "漢字 !"][: 1 if unit == "words" else 2]


def test_a_pointer_needs_words():
    codec = Pairs("x", unit="bpe", vocabulary=300).fit(PAIRS)
    for call in (lambda: codec.copies("a"), lambda: codec.copied("a", [])):
        refused("fit one with unit = 'words'", call, kind=UnsupportedError)


def test_copies_stand_beside_their_sources():
    data = Summaries("x", vocabulary=5, longest=6)
    part = [Pair("It's here; the cat isn't (3.5) <unk> HERE", "the here 3.5"), *PAIRS]
    codec = data.fit(part)
    made = encoded(codec, part, copies=True)
    assert made["sources"].lengths.tolist() == made["copies"].lengths.tolist()
    np.testing.assert_array_equal(
        np.where(made["copies"].flat > codec.end, UNKNOWN, made["copies"].flat), made["sources"].flat
    )
    for i, pair in enumerate(part):
        extra = codec.copies(pair.source)[1]
        assert codec.decode(made["copies"][i], extra) == " ".join(words(codec.source, pair.source)[:6])
    plain = encoded(codec, part)
    assert plain["copies"] is None
    assert [row[-1] for row in (plain["targets"][i] for i in range(4))] == [codec.end] * 4


# ---- batches ---------------------------------------------------------------------------------------------------------


def drawn(count=300, seed=0):
    """Rows of both sides that say which pair they are of: its number, then anything."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 40, count)
    others = np.clip(lengths + rng.integers(-5, 6, count), 1, None)
    sides = []
    for side in (lengths, others):
        sides.append([np.append(rng.integers(2, 99, n - 1), 1000 + i).astype(np.int32) for i, n in enumerate(side)])
    return sides


def numbers(batch):
    return (batch.values.gather(1, batch.lengths[:, None] - 1).squeeze(1) - 1000).tolist()


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("copy", [False, True])
def test_every_pair_once_an_epoch_within_the_budget(train, copy):
    sources, targets = drawn()
    copies = stored(row + 5 for row in sources) if copy else None
    data = PairBuckets(stored(sources), stored(targets), tokens=500, train=train, copies=copies)
    for data.epoch in range(3):
        batches, seen = list(data), Counter()
        assert len(batches) == len(data) == data.steps(data.epoch)
        for batch in batches:
            assert batch.fresh
            assert batch.values.dtype == batch.targets.dtype == batch.lengths.dtype == torch.int64
            assert batch.weights.dtype == torch.float32
            assert batch.values.numel() + batch.targets.numel() <= 500
            assert batch.weights.shape == batch.targets.shape
            assert (batch.lengths.diff() <= 0).all()
            assert batch.values.shape[1] == batch.lengths[0]
            assert batch.weights.sum(1).max() == batch.targets.shape[1]
            assert (batch.copies is not None) == copy
            for row, i in enumerate(numbers(batch)):
                n, m = int(batch.lengths[row]), int(batch.weights[row].sum())
                assert batch.values[row, :n].tolist() == sources[i].tolist()
                assert batch.targets[row, :m].tolist() == targets[i].tolist()
                assert (batch.weights[row, :m] == 1).all()
                assert not batch.values[row, n:].any()
                assert not batch.targets[row, m:].any()
                if copy:
                    assert batch.copies[row, :n].tolist() == (sources[i] + 5).tolist()
                    assert not batch.copies[row, n:].any()
                seen[i] += 1
        assert seen == dict.fromkeys(range(300), 1)
        cells = sum(batch.values.numel() + batch.targets.numel() for batch in batches)
        assert cells < 1.3 * sum(map(len, sources + targets))  # little padding
    if not train:
        longest = [int(batch.lengths[0]) for batch in batches]
        assert longest == sorted(longest, reverse=True)


def test_order_is_seeded_by_epoch():
    sources, targets = map(stored, drawn())

    def order(seed, epoch):
        data = PairBuckets(sources, targets, tokens=400, train=True, seed=seed)
        data.epoch = epoch
        return [tuple(numbers(batch)) for batch in data]

    assert order(0, 1) == order(0, 1)  # a resumed run finds the same epoch, whatever came before
    assert len({str(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    assert {frozenset(group) for group in order(0, 0)} != {frozenset(group) for group in order(0, 1)}


def test_a_pair_over_the_budget_is_alone():
    sources, targets = drawn(20)
    sources[7] = np.append(np.full(99, 3), 1007).astype(np.int32)
    data = PairBuckets(stored(sources), stored(targets), tokens=90, train=True)
    groups = [numbers(batch) for batch in data]
    assert [7] in groups
    assert sorted(i for group in groups for i in group) == list(range(20))
    alone = PairBuckets(stored(sources), stored(targets), tokens=1, train=False)
    assert [len(group) for group in map(numbers, alone)] == [1] * 20
    refused("no pair is left", PairBuckets, stored([]), stored([]), tokens=90, train=True)


def test_few_pairs_are_gone_through_again():
    sources, targets = map(stored, drawn(6))
    data = PairBuckets(sources, targets, tokens=10_000, train=True, min_steps=9)
    assert data.steps(0) == len(list(data)) == 9
    assert Counter(i for batch in data for i in numbers(batch)) == dict.fromkeys(range(6), 9)
    assert PairBuckets(sources, targets, tokens=10_000, train=False, min_steps=9).steps(0) == 1


@pytest.mark.parametrize("count", [2, 12, 47])
def test_processes_share_the_pairs(monkeypatch, count):
    sources, targets = map(stored, drawn(count))
    seen, steps = Counter(), set()
    for place in range(3):
        monkeypatch.setattr(buckets, "rank", lambda place=place: (place, 3))
        batches = list(PairBuckets(sources, targets, tokens=300, train=True))
        steps.add(len(batches))
        for batch in batches:
            assert batch.values.shape[1] == batch.lengths.max()
            seen.update(numbers(batch))
    assert set(seen) == set(range(count))
    assert len(steps) == 1


# ---- real data -------------------------------------------------------------------------------------------------------


@needs("multi30k_en_de")
def test_multi30k():
    folder = DATA / "multi30k_en_de"
    own = {"validation": folder / "val.de.gz", "validation_target": folder / "val.en.gz"}
    data = Pairs(folder / "train.de.gz", target=folder / "train.en.gz", vocabulary=2000, **own)
    train, valid = data.parts()
    assert [sum(1 for _ in part) for part in (train, valid)] == [29_000, 1_014]
    codec = data.fit(valid)
    made = encoded(codec, valid)
    for i, pair in enumerate(valid):
        assert codec.decode(made["targets"][i]) == codec.target.normal(pair.target)


@needs("aeslc")
def test_aeslc():
    source = DATA / "aeslc" / "dev.jsonl.gz"
    data = Summaries(source, source_column="body", target_column="subject", validation=0.1)
    train, valid = data.parts()
    assert sum(1 for part in (train, valid) for _ in part) == 1_960
    codec = data.fit(train)
    made = encoded(codec, valid, copies=True)
    assert made["sources"].lengths.tolist() == made["copies"].lengths.tolist()
    assert made["sources"].lengths.max() == 401
