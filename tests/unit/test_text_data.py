"""Parts that never leak; every token a target once; padding that counts nothing."""

import gc
import os
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recurra.codec.text import PADDING, UNKNOWN, CharacterView, Labels, fit
from recurra.data import buckets, streams
from recurra.data.buckets import Buckets, Rows, stored
from recurra.data.streams import Streams
from recurra.data.text import Documents, Part, Sentences, Text
from recurra.errors import DataError, RecipeError
from recurra.textfile import sentences

DATA = Path(os.environ.get("RECURRA_DATA", "/nowhere"))
JSON = Path(os.__file__).parent / "json"


def needs(name):
    return pytest.mark.skipif(not (DATA / name).is_dir(), reason=f"RECURRA_DATA names no folder with {name}")


def refused(words, call, *args, kind=DataError, **options):
    with pytest.raises(kind) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert words in message, message


def texts(part):
    return [document.text for document in part]


# ---- configs and parts -----------------------------------------------------------------------------------------------


def test_validation_as_it_may_be_written():
    for value, want in ((0, 0.0), ("0.2", 0.2), (0.1, 0.1), ("valid.txt", "valid.txt"), (Path("v"), Path("v"))):
        for cls in (Text, Documents, Sentences):
            assert cls("x", validation=value).validation == want
    assert isinstance(Text("x", validation=0).validation, float)
    assert Text("x").validation == 0.1
    for value in (1, -0.1, "1.5", float("nan")):
        refused("a fraction is at least 0 and below 1", Text, "x", validation=value, kind=RecipeError)
    refused("has no option 'patern': did you mean 'pattern'?", Text, "x", patern="*", kind=RecipeError)
    refused("unit", Text, "x", unit="letters", kind=RecipeError)


def test_running_text_keeps_its_last_lines(tmp_path):
    lines = [f"line {i:02}\n" for i in range(40)]
    (tmp_path / "t.txt").write_text("".join(lines))
    train, valid = Text(tmp_path / "t.txt").parts()
    for _ in range(2):  # each pass reads it anew
        assert list(train) == lines[:36]
        assert list(valid) == lines[36:]
    train, valid = Text(tmp_path / "t.txt", validation=0).parts()
    assert list(train) == lines
    assert valid is None
    (tmp_path / "v.txt").write_text("other\n")
    train, valid = Text(tmp_path / "t.txt", validation=str(tmp_path / "v.txt")).parts()
    assert (list(train), list(valid)) == (lines, ["other\n"])
    (tmp_path / "one.txt").write_text("one line")
    refused("1 line(s) are too few to keep 0.1", Text(tmp_path / "one.txt").parts)
    refused("no such file", Text(tmp_path / "t.text").parts)
    refused("no such file", Text(tmp_path / "t.txt", validation=tmp_path / "w.txt").parts)


def test_a_folder_is_read_whatever_lies_in_it(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("of b, without an end")
    (tmp_path / "sub" / "a.md").write_text("of a\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (tmp_path / "old.txt").write_bytes(b"caf\xe9\n")
    with pytest.warns(RuntimeWarning, match=r"2 file\(s\) left out, e.g. .*old.txt, line 1"):
        train, valid = Text(tmp_path, validation=0.5).parts()
    assert (list(train), list(valid)) == (["of b, without an end\n"], ["of a\n"])
    train, _ = Text(tmp_path, validation=0, pattern="*.md").parts()
    assert list(train) == ["of a\n"]
    refused("line 1", Text([tmp_path / "b.txt", tmp_path / "old.txt"]).parts)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "x").write_text("")
    refused("holds no text like", Text(tmp_path / "none").parts)


def test_the_standard_library_as_running_text():
    data = Text(JSON, pattern="*.py", unit="bpe", vocabulary=600)
    train, valid = data.parts()
    codec = data.fit(train)
    whole = "".join(path.read_text("utf-8") for path in sorted(JSON.glob("*.py")))
    ids = [stored(codec.encode_each(part)).flat for part in (train, valid)]
    assert "".join(map(codec.decode, ids)) == whole
    assert len(ids[1]) / (len(ids[0]) + len(ids[1])) == pytest.approx(0.1, abs=0.03)


def test_documents_are_drawn_by_a_seed_and_stratum(tmp_path):
    frame = pl.DataFrame({"text": [f"text {i}" for i in range(400)], "label": ["a"] * 360 + ["b"] * 40})
    train, valid = Documents(frame).parts()
    assert len(texts(valid)) == 40
    assert Counter(document.labels for document in valid) == {("a",): 36, ("b",): 4}
    assert sorted(texts(train) + texts(valid)) == sorted(frame["text"])
    assert texts(valid) == texts(Documents(frame).parts()[1])
    other = Documents(frame).parts(seed=1)[1]
    assert len(texts(other)) == 40
    assert len(set(texts(other)) & set(texts(valid))) < 20
    few = pl.DataFrame({"text": list("abcdefghijklmnopqrst"), "label": [i % 10 for i in range(20)]})
    assert len(texts(Documents(few).parts()[1])) == 2
    refused("4 document(s) are too few to keep 0.1 of them", Documents(few.head(4)).parts)
    assert Documents(few, validation=0).parts()[1] is None
    mine = Documents(frame, validation=few)
    assert texts(mine.parts()[0]) == frame["text"].to_list()
    assert texts(mine.parts()[1]) == few["text"].to_list()


def test_equal_texts_are_all_in_one_part():
    rng = np.random.default_rng(0)
    kinds = [f"Text number {i}" for i in range(60)]
    drawn = rng.integers(0, 60, 500)
    forms = [(lambda s: s), str.upper, (lambda s: s.replace(" ", "  ") + " ")]
    frame = pl.DataFrame(
        {"text": [forms[i % 3](kinds[k]) for i, k in enumerate(drawn)], "label": [str(i % 2) for i in range(500)]}
    )
    for seed in range(5):
        train, valid = Documents(frame, validation=0.2).parts(seed)
        inside, outside = ({" ".join(text.split()).lower() for text in texts(part)} for part in (train, valid))
        assert not inside & outside
        assert len(outside) == 12
        assert len(inside) == 48


def test_equal_series_and_sentences_are_all_in_one_part(tmp_path):
    frame = pl.DataFrame({"label": [0, 1] * 20, "x": [float(i % 10) for i in range(40)], "y": [1.0] * 40})
    train, valid = Documents(frame, values=("x", "y"), validation=0.3).parts()
    inside, outside = ({document.values[0, 0] for document in part} for part in (train, valid))
    assert not inside & outside
    assert len(outside) == 3
    path = tmp_path / "t.conll"
    path.write_text("\n\n".join(f"a{i % 20} X\nb Y" for i in range(100)))
    train, valid = Sentences(path, validation=0.25).parts()
    inside, outside = ({sentence.words[0] for sentence in part} for part in (train, valid))
    assert not inside & outside
    assert len(outside) == 5
    both = Sentences([path, path], validation=path)
    assert [len(list(part)) for part in both.parts()] == [200, 100]


def test_codecs_are_fitted_on_what_they_are_given(tmp_path):
    frame = pl.DataFrame({"text": ["It's new, new York", "it's OLD, x"], "label": ["a", "b"]})
    data = Documents(frame, validation=0, lower=True)
    codec = data.fit(data.parts()[0])
    assert [codec.token(i) for i in range(codec.size)] == ["<pad>", "<unk>", ",", "it's", "new"]  # each at least twice
    path = tmp_path / "x.conllu"
    rest = "\t_" * 6
    path.write_text(f"1\tNew York\t_\tX{rest}\n2\tNew York\t_\tX{rest}\n3\tis.\t_\tX{rest}\n")
    data = Sentences(path, validation=0, lower=False)
    codec = data.fit(data.parts()[0])
    assert [codec.token(i) for i in range(codec.size)] == ["<pad>", "<unk>", "New York", "is."]
    assert codec.encode_words(["is.", "New York", "is"]).tolist() == [3, 2, UNKNOWN]
    refused("no text", data.fit, [])
    for data in (Documents(frame), Sentences(path)):
        assert set(data.columns) <= set(type(data).__pydantic_fields__)


# ---- rows ------------------------------------------------------------------------------------------------------------


def ragged(lengths, *shape, seed=0, dtype=np.int32):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 50, (n, *shape)).astype(dtype) for n in lengths]


@pytest.mark.parametrize(("shape", "dtype"), [((), np.int32), ((3,), np.int32), ((2,), np.float64), ((), np.int64)])
def test_rows_are_kept_in_a_file(shape, dtype):
    given = ragged([3, 0, 7, 1], *shape, dtype=dtype)
    rows = stored(iter(given))
    gc.collect()
    assert len(rows) == 4
    assert rows.lengths.tolist() == [3, 0, 7, 1]
    assert rows.flat.dtype == dtype
    for i, row in enumerate(given):
        np.testing.assert_array_equal(rows[i], row)
    assert rows.digest() == stored(given).digest()
    assert rows.digest() != stored(given[::-1]).digest()
    assert rows.digest() != Rows(rows.flat, np.array([0, 0, 3, 10, 11])).digest()
    assert len(stored([])) == 0
    assert stored([]).digest()


# ---- streams ---------------------------------------------------------------------------------------------------------


def rebuilt(batches, streams):
    """The targets of each stream, and what was read before each of them."""
    out = [([], []) for _ in range(streams)]
    for k, batch in enumerate(batches):
        assert batch.fresh == (k == 0)
        assert batch.values.dtype == batch.targets.dtype == batch.lengths.dtype == torch.int64
        assert batch.weights.dtype == torch.float32
        assert batch.values.shape == batch.targets.shape == batch.weights.shape == (streams, batch.values.shape[1])
        steps = torch.arange(batch.values.shape[1])
        assert torch.equal(batch.weights.bool(), steps < batch.lengths[:, None])
        assert (batch.values[batch.weights == 0] == PADDING).all()
        for (targets, before), row, n in zip(out, range(streams), batch.lengths.tolist(), strict=True):
            targets += batch.targets[row, :n].tolist()
            before += batch.values[row, :n].tolist()
    return out


@pytest.mark.parametrize("vary", [False, True])
@pytest.mark.parametrize(
    ("n", "streams", "chunk"), [(1, 1, 5), (7, 20, 5), (103, 4, 7), (104, 4, 13), (1000, 7, 35), (63, 63, 1)]
)
def test_every_token_is_a_target_once(n, streams, chunk, vary):
    ids = np.random.default_rng(n).integers(2, 99, n).astype(np.int32)
    data = Streams(ids, batch_size=streams, chunk=chunk, vary=vary, start=55)
    for data.epoch in range(3):
        batches = list(data)
        assert len(batches) == data.steps(data.epoch) == len(data)
        out = rebuilt(batches, min(n, streams))
        assert [i for targets, _ in out for i in targets] == ids.tolist()
        assert [i for _, before in out for i in before] == [55, *ids[:-1].tolist()]
        assert max(len(t) for t, _ in out) - min(len(t) for t, _ in out) <= 1
        assert sum(batch.weights.sum() for batch in batches) == n
        if not vary:
            assert all(batch.values.shape[1] == chunk for batch in batches[:-1])


def test_chunks_of_random_length_are_seeded():
    ids = np.arange(20_000, dtype=np.int32)
    data = Streams(ids, batch_size=4, chunk=70, vary=True, seed=3)

    def widths(data, epoch):
        data.epoch = epoch
        return [batch.values.shape[1] for batch in data]

    first = widths(data, 0)
    assert first == widths(data, 0) == widths(Streams(ids, batch_size=4, chunk=70, vary=True, seed=3), 0)
    assert first != widths(data, 1)
    assert first != widths(Streams(ids, batch_size=4, chunk=70, vary=True, seed=4), 0)
    many = np.array(widths(Streams(np.zeros(2_000_000, np.int32), batch_size=4, chunk=70, vary=True), 0)[:-1])
    assert abs(np.median(many) - 70) <= 1
    assert (many < 50).mean() == pytest.approx(0.05, abs=0.01)
    assert many.min() >= 5


def test_a_chunk_of_random_length_scales_its_learning_rate():
    ids = np.arange(20_000, dtype=np.int32)
    varied = list(Streams(ids, batch_size=4, chunk=70, vary=True, seed=3))
    assert [batch.scale for batch in varied] == [batch.values.shape[1] / 70 for batch in varied]
    assert {batch.scale for batch in Streams(ids, batch_size=4, chunk=70)} == {1.0}


def test_processes_share_the_streams(monkeypatch):
    ids = np.random.default_rng(0).integers(2, 99, 103).astype(np.int32)
    seen = []
    steps = set()
    for place in range(3):
        monkeypatch.setattr(streams, "rank", lambda place=place: (place, 3))
        data = Streams(ids, batch_size=7, chunk=4)
        batches = list(data)
        steps.add(len(batches))
        seen += [i for targets, _ in rebuilt(batches, len(batches[0].lengths)) for i in targets]
    assert sorted(seen) == sorted(ids.tolist())
    assert len(steps) == 1
    refused("2 streams are too few for 3 processes", list, Streams(ids, batch_size=2, chunk=4))


def test_no_text_at_all():
    refused("there is no text", Streams, np.zeros(0, np.int32), batch_size=2, chunk=3)


@needs("ptb")
def test_penn_treebank(tmp_path):
    folder = DATA / "ptb"
    data = Text(folder / "ptb.train.txt.gz", unit="words", validation=folder / "ptb.valid.txt.gz")
    train, valid = data.parts()
    codec = data.fit(train)
    test = Text(folder / "ptb.test.txt.gz", validation=0).parts()[0]
    ids = [stored(codec.encode_each(part)).flat for part in (train, valid, test)]
    assert codec.size == 10_001
    assert list(map(len, ids)) == [929_589, 73_760, 82_430]
    assert all(part.min() >= UNKNOWN for part in ids)
    assert ids[0].dtype == np.int32
    batches = Streams(ids[0], batch_size=20, chunk=20)
    assert batches.steps(0) == 2_324  # of 46,480 steps a stream


@needs("tiny_shakespeare")
def test_tiny_shakespeare():
    data = Text(DATA / "tiny_shakespeare" / "input.txt.gz")
    train, valid = data.parts()
    codec = data.fit(train)
    assert codec.size == 2 + 65
    sizes = [sum(map(len, codec.encode_each(part))) for part in (train, valid)]
    assert sum(sizes) == 1_115_394
    assert sizes[1] / sum(sizes) == pytest.approx(0.1, abs=1e-4)


# ---- buckets ---------------------------------------------------------------------------------------------------------

LENGTHS = np.random.default_rng(5).integers(1, 30, 47).tolist()


def unpadded(batch):
    for row, n in zip(range(len(batch.lengths)), batch.lengths.tolist(), strict=True):
        yield batch.values[row, :n].numpy(), n, row


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_rows_with_a_label_each(train, kept):
    rows = ragged(LENGTHS)
    labels = np.arange(47) % 5
    data = Buckets(stored(rows) if kept else rows, labels, batch_size=8, train=train)
    for data.epoch in range(2):
        batches = list(data)
        assert len(batches) == data.steps(data.epoch) == len(data) == 6
        seen = []
        for batch in batches:
            assert batch.fresh
            assert batch.values.dtype == batch.targets.dtype == torch.int64
            assert batch.values.shape[1] == batch.lengths[0] == batch.lengths.max()
            assert (batch.lengths.diff() <= 0).all()
            assert torch.equal(batch.weights, torch.ones(len(batch.lengths)))
            assert batch.characters is None
            for values, n, row in unpadded(batch):
                assert (batch.values[row, n:] == PADDING).all()
                seen.append((tuple(values.tolist()), int(batch.targets[row])))
        assert Counter(seen) == Counter(
            (tuple(row.tolist()), int(label)) for row, label in zip(rows, labels, strict=True)
        )
    if not train:
        assert [int(batch.lengths[0]) for batch in batches] == sorted(
            (int(b.lengths[0]) for b in batches), reverse=True
        )


def test_a_target_a_step_and_the_letters_of_words():
    rows, letters = ragged(LENGTHS), ragged(LENGTHS, 4, seed=1)
    tags = [row % 7 for row in rows]
    data = Buckets(stored(rows), stored(tags), batch_size=8, train=True, characters=stored(letters))
    found = {}
    for batch in data:
        assert batch.targets.shape == batch.values.shape == batch.weights.shape
        assert batch.characters.shape == (*batch.values.shape, 4)
        assert batch.characters.dtype == torch.int64
        assert torch.equal(batch.weights.sum(1), batch.lengths.float())
        for values, n, row in unpadded(batch):
            assert (batch.targets[row, :n].numpy() == values % 7).all()
            assert (batch.weights[row, :n] == 1).all()
            assert not batch.characters[row, n:].any()
            found[values.tobytes()] = batch.characters[row, :n].numpy()
    for row, want in zip(rows, letters, strict=True):
        np.testing.assert_array_equal(found[row.astype(np.int64).tobytes()], want)


def test_several_labels_and_numeric_series():
    rows = [row.astype(np.float64) for row in ragged(LENGTHS, 2)]
    rows[3][0, 1] = np.nan
    labels = np.random.default_rng(0).integers(0, 2, (47, 3)).astype(bool)
    data = Buckets(rows, labels.astype(np.float32), batch_size=10, train=False)
    missing = 0
    for batch in data:
        assert batch.values.dtype == batch.targets.dtype == torch.float32
        assert batch.targets.shape == (len(batch.lengths), 3)
        assert batch.weights.shape == (len(batch.lengths), 1)
        for values, n, row in unpadded(batch):
            missing += int(np.isnan(values).sum())
            assert not batch.values[row, n:].any()
    assert missing == 1


def test_order_is_seeded_and_lengths_are_alike():
    rows = ragged(np.random.default_rng(1).integers(1, 200, 500))
    labels = np.arange(500)

    def order(seed, epoch):
        data = Buckets(rows, labels, batch_size=16, train=True, seed=seed)
        data.epoch = epoch
        return [tuple(batch.targets.tolist()) for batch in data]

    assert order(0, 0) == order(0, 0)
    assert len({str(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    assert {frozenset(group) for group in order(0, 0)} != {frozenset(group) for group in order(0, 1)}
    data = Buckets(rows, labels, batch_size=16, train=True)
    cells = sum(batch.values.numel() for batch in data)
    assert cells < 1.25 * sum(map(len, rows))  # little padding


def test_small_sets_are_gone_through_again():
    data = Buckets(ragged([3, 4, 5]), np.arange(3), batch_size=2, train=True, min_steps=9)
    assert data.steps(0) == len(list(data)) == 8
    assert Counter(int(t) for batch in data for t in batch.targets) == dict.fromkeys(range(3), 4)
    assert Buckets(ragged([3, 4, 5]), np.arange(3), batch_size=2, train=False, min_steps=9).steps(0) == 2


@pytest.mark.parametrize("count", [12, 47, 2])
def test_processes_share_the_rows(monkeypatch, count):
    seen, steps = Counter(), set()
    for place in range(3):
        monkeypatch.setattr(buckets, "rank", lambda place=place: (place, 3))
        data = Buckets(ragged(LENGTHS[:count]), np.arange(count), batch_size=8, train=True)
        batches = list(data)
        steps.add(len(batches))
        seen.update(int(t) for batch in batches for t in batch.targets)
    assert set(seen) == set(range(count))
    assert sum(seen.values()) <= count + 3
    assert steps == {data.steps(0)}


def test_bad_rows():
    refused("row 2 is empty", Buckets, ragged([3, 0, 2]), np.arange(3), batch_size=2, train=True)
    refused("nothing to learn", Buckets, [], np.arange(0), batch_size=2, train=True)


@needs("conll2003_ner_en")
def test_conll2003():
    data = Sentences(DATA / "conll2003_ner_en" / "train.txt.gz", validation=DATA / "conll2003_ner_en" / "valid.txt.gz")
    train, valid = data.parts()
    codec = data.fit(train)
    tags = Labels.fit(tag for sentence in train for tag in sentence.tags)
    view = CharacterView.fit(word for sentence in train for word in sentence.words)
    assert len(tags) == 9
    assert sum(n for name, n in zip(tags.names, tags.counts, strict=True) if name.startswith("B-")) == 23_499
    batches = Buckets(
        stored(codec.encode_words(sentence.words) for sentence in valid),
        stored(tags.encode(sentence.tags) for sentence in valid),
        characters=stored(view.encode(sentence.words) for sentence in valid),
        batch_size=32,
        train=False,
    )
    assert sum(int(batch.weights.sum()) for batch in batches) == 51_362
    first = next(sentences(DATA / "conll2003_ner_en" / "train.txt.gz"))
    assert first.words[:3] == ("EU", "rejects", "German")
    assert first.tags[:3] == ("B-ORG", "O", "B-MISC")


def test_a_part_is_read_anew():
    calls = []

    def read():
        calls.append(1)
        return iter(range(5))

    part = Part(read, np.array([True, False, True, True, False]))
    assert list(part) == list(part) == [0, 2, 3]
    assert len(calls) == 2
    assert list(Part(read)) == [0, 1, 2, 3, 4]
    codec = fit((str(i) for i in part), unit="words")
    assert codec.size == 5
