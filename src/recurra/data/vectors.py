"""Pretrained word vectors: GloVe's text, word2vec's text and binary, fastText's .vec. Read as a stream, each with .gz or without."""

import os
import re
import zlib
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import IO

import numpy as np

from recurra.errors import DataError
from recurra.tablefile import check_file, open_bytes, short

HEADER = re.compile(rb"(\d+)[ \t]+(\d+)\s*")  # number of words and width
LONGEST = 1 << 12  # bytes of a word at most


def load(path: str | os.PathLike[str], words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of `words`: (float32 [n, width], bool [n]: which were found; the others are 0).

    A word that the file has in lower case alone takes that vector. Of a word that stands in it twice the first counts.
    Raises DataError: no such file, empty, another width in some line, what is no number, a broken binary, no word found.
    """
    path = Path(path)
    check_file(path)
    places: dict[bytes, list[int]] = {}
    for i, word in enumerate(words):
        for form in {word, word.lower()}:
            places.setdefault(form.encode("utf-8", "surrogatepass"), []).append(i)
    exact = [word.encode("utf-8", "surrogatepass") for word in words]
    vectors: np.ndarray | None = None
    found = np.zeros(len(words), np.int8)  # 1: in lower case, 2: as it is written
    try:
        for word, vector in _entries(path, places):
            vectors = np.zeros((len(words), len(vector)), np.float32) if vectors is None else vectors
            for i in places[word]:
                rank = 2 if word == exact[i] else 1
                if rank > found[i]:
                    vectors[i], found[i] = vector, rank
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read ({short(error)}): copy or compress it again") from None
    if vectors is None:
        raise DataError(f"{path} holds none of the {len(words)} words: is it of another language, or cased otherwise?")
    return vectors, found > 0


def _entries(path: Path, wanted: Container[bytes]) -> Iterator[tuple[bytes, np.ndarray]]:
    """The wanted words of a file, and their vectors."""
    with open_bytes(path) as file:
        first = file.readline()
        header = HEADER.fullmatch(first)
        count, width = (int(header[1]), int(header[2])) if header else (0, len(first.split()) - 1)
        if width < 1:
            raise DataError(f"{path}, line 1: there is no vector: write a word and its numbers on a line")
        if header and _is_binary(path, len(first), width):
            yield from _binary(file, path, wanted, count, width)
        else:
            lines = file if header else chain([first], file)
            yield from _text(lines, path, wanted, width, count if header else None)


def _is_binary(path: Path, begin: int, width: int) -> bool:
    """Whether the numbers of the first word, which stands behind the header, are bytes and not digits."""
    with open_bytes(path) as file:
        file.seek(begin)
        entry = file.read(LONGEST + 4 * width)
    line = entry.split(b"\n")[0].split()
    if len(line) > width and all(map(_is_number, line[-width:])):
        return False
    numbers = entry[entry.find(b" ") + 1 :][: 4 * width]
    return re.search(rb"[^\t\n\r -~]", numbers) is not None


def _is_number(field: bytes) -> bool:
    try:
        return isfinite(float(field))
    except ValueError:
        return False


def _text(
    lines: Iterable[bytes], path: Path, wanted: Container[bytes], width: int, count: int | None
) -> Iterator[tuple[bytes, np.ndarray]]:
    """count: words that the header, the first line, names; None: there is none."""
    read = 0
    for number, line in enumerate(lines, start=1 if count is None else 2):
        line = line.rstrip()
        if not line:
            continue
        read += 1
        fields = line.split(b" ") if line.count(b" ") == width else line.split()
        head, numbers = fields[:-width], fields[-width:]
        if not head or any(map(_is_number, head[1:])):  # a word may hold spaces, as ". . ." in GloVe's 840B
            raise DataError(
                f"{path}, line {number}: has {len(fields) - 1} numbers, but {width} are expected: mend the line"
            )
        word = b" ".join(head)
        if word in wanted:
            if not all(map(_is_number, numbers)):
                raise DataError(f"{path}, line {number}: the vector holds what is not a number: mend the line")
            yield word, np.array([float(field) for field in numbers], np.float32)
    if count is not None and read < count:
        raise DataError(f"{path}: ends after {read} of the {count} words that its first line names: copy it again")


def _binary(
    file: IO[bytes], path: Path, wanted: Container[bytes], count: int, width: int
) -> Iterator[tuple[bytes, np.ndarray]]:
    """For each word: its bytes, a space, `width` little-endian float32, and a line's end or none."""
    block, begin = b"", 0
    for number in range(1, count + 1):
        place = f"{path}: is broken at word {number} of {count}: copy it again"
        while (space := block.find(b" ", begin)) < 0 or len(block) < space + 1 + 4 * width:
            more = file.read(1 << 20)
            if not more or (space < 0 and len(block) - begin > LONGEST):
                raise DataError(place)
            block, begin = block[begin:] + more, 0
        word = block[begin:space].lstrip(b"\n")
        begin = space + 1 + 4 * width
        if word in wanted:
            vector = np.frombuffer(block, "<f4", width, space + 1)
            if not np.isfinite(vector).all():
                raise DataError(place)
            yield word, vector
    if (block[begin:] + file.read(LONGEST)).strip(b"\n"):
        raise DataError(
            f"{path}: goes on behind the {count} words of {width} numbers that its first line names: copy it again"
        )
