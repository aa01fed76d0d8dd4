"""Text from files, as a stream: lines of plain text, labelled documents, tagged sentences of CoNLL columns and CoNLL-U.

No file is held in memory as a whole. Messages name the file, and the line or row.
"""

import codecs
import io
import os
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recurra.documenttable import Document, from_table, label_name, texts, trimmed
from recurra.errors import DataError, nearest
from recurra.tablefile import ENDINGS, check_file, open_bytes, open_table, short, undecodable

__all__ = ["Document", "Sentence", "documents", "files", "lines", "pieces", "sentences"]

WAY_OUT = "convert it to UTF-8, or name its encoding where a model is trained, e.g. --encoding latin-1"
LONGEST = 1 << 16  # characters of a line that are held at once
MAYBE = ("feats", "misc")  # columns of CoNLL-U where "_" is an answer
CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")


# -- plain text ------------------------------------------------------------------------------------------------------------


def lines(path: str | os.PathLike[str], encoding: str = "utf-8") -> Iterator[str]:
    """The lines of a text file (.gz: of what is in it), without their ends.

    Raises DataError: no such file, empty, no text in this encoding (the line is named), an unknown encoding, a broken .gz file.
    """
    for line in _read(Path(path), encoding, -1):
        yield line.removesuffix("\n")


def pieces(path: str | os.PathLike[str], encoding: str = "utf-8", column: str | None = None) -> Iterator[str]:
    """The text of a file: its lines with their ends ("\\n", the last one's too); a line of over 65,536 characters in several
    pieces, cut before a space where there is one. Of a table (.csv, .tsv, .parquet, .jsonl): the texts in `column`, each with an
    end. Raises DataError as `lines` does, and for a table without a column.
    """
    if str(path).lower().endswith(ENDINGS):
        if column is None:
            raise DataError(f"{path} is a table: name the column of its text, e.g. --text review")
        yield from (f"{(row[0] or '').rstrip()}\n" for row in texts(open_table(path, (column,)), (column,)))
        return
    rest = ""
    for part in _read(Path(path), encoding, LONGEST):
        text = rest + part
        cut = len(text) if part.endswith("\n") else 0
        if not cut and len(part) == LONGEST:  # else the last line, and no end of it
            cut = max(text.rfind(" "), 0) or len(text)
        rest = text[cut:]
        if cut:
            yield text[:cut]
    if rest:
        yield rest + "\n"


def files(source: Any, pattern: str = "*") -> list[Path]:
    """The files of a source: one path, a list of paths, or a folder: all files below it whose name is like `pattern`, sorted,
    hidden ones left out. Raises DataError where there is none.
    """
    if isinstance(source, list | tuple):
        return [file for one in source for file in files(one, pattern)]
    path = Path(source)
    if not path.is_dir():
        check_file(path)
        return [path]
    below = (file.relative_to(path) for file in path.rglob(pattern) if file.is_file())
    found = [path / file for file in sorted(below) if not any(part.startswith(".") for part in file.parts)]
    if not found:
        raise DataError(f"the folder {path} holds no file like '{pattern}'")
    return found


def _read(path: Path, encoding: str, size: int) -> Iterator[str]:
    """Lines with their ends, or parts of at most `size` characters of them."""
    check_file(path)
    number = 0
    try:
        name = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding  # a byte order mark is no text
        with open_bytes(path) as raw, io.TextIOWrapper(raw, encoding=name) as file:
            for number, line in enumerate(iter(lambda: file.readline(size), ""), start=1):
                if "\0" in line:
                    raise DataError(
                        f"{path}, line {number}: holds a NUL byte, so it is no text in {encoding}: {WAY_OUT}"
                    )
                yield line
    except LookupError:
        raise DataError(f"there is no encoding '{encoding}': try utf-8, latin-1 or cp1252") from None
    except UnicodeError:
        found = undecodable(path, encoding)
        at = f", line {found[0]}: byte 0x{found[1]:02X}" if found else ""
        raise DataError(f"{path}{at} is no text in {encoding}: {WAY_OUT}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read ({short(error)}): copy or compress it again") from None
    if not number:
        raise DataError(f"{path} is empty: a text has at least one line")


# -- documents -------------------------------------------------------------------------------------------------------------


def documents(
    source: Any,
    *,
    text: str | None = "text",
    label: str | None = "label",
    separator: str | None = None,
    values: Sequence[str] | None = None,
    label_until: str | None = None,
    encoding: str = "utf-8",
    labelled: bool = True,
    known: Collection[str] = (),
) -> Iterator[Document]:
    """The documents of a table: a CSV, TSV, Parquet or JSON Lines file (UTF-8), or a frame of pandas, Polars or pyarrow.

    text, label: its columns; label None: it has none.  separator: between the labels of one document (a column of lists does
    without it); such a document may have no label.  label_until: a label ends before this mark (":" makes NUM of NUM:date).
    values: the columns of a numeric series in the place of a text: one column a step ("*": all but the label), or columns of
    lists, one a channel; missing steps at its end are left out.  labelled: False: labels are not read and need not be there.

    A .tsv file that begins with a number is of the UCR archive: a label and the steps a line, no header. A file of any other
    ending is plain text in `encoding`, a document a line: its first word is the label, where labels are read. Where they are not, a file of
    which every line begins with one of the labels `known` has them all the same, and they are left out of the texts.
    Raises DataError: no such file or column, a row without text or label, a series without a number.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        ending = Path(path.name.lower().removesuffix(".gz")).suffix
        if ending in (".json", ".ndjson"):
            raise DataError(f"{path}: unknown ending '{ending}': write one JSON object a line and name the file .jsonl")
        if ending == ".tsv" and _is_ucr(path):
            yield from _ucr(path, label_until, labelled)
            return
        if ending not in (".csv", ".tsv", ".jsonl", ".parquet"):
            named = labelled or (bool(known) and _named(path, encoding, label_until, known))
            yield from _plain(path, encoding, label_until, named and label is not None)
            return
    yield from from_table(
        source,
        text=text,
        label=label,
        separator=separator,
        values=tuple(values or ()),
        label_until=label_until,
        labelled=labelled,
    )


def _plain(path: Path, encoding: str, until: str | None, labelled: bool) -> Iterator[Document]:
    found = False
    for number, line in enumerate(lines(path, encoding), start=1):
        if not line.strip():
            continue
        found = True
        if not labelled:
            yield Document(line.strip(), None, None)
            continue
        name, *text = line.split(maxsplit=1)
        if not text:
            raise DataError(f"{path}, line {number}: '{name[:40]}' is a label without a text: write both on a line")
        yield Document(text[0].rstrip(), None, (name.split(until)[0] if until else name,))
    if not found:
        raise DataError(f"{path} holds blank lines alone: write a label and a text on a line")


def _named(path: Path, encoding: str, until: str | None, known: Collection[str]) -> bool:
    """Whether every line begins with a label."""
    names = (line.split(maxsplit=1)[0] for line in lines(path, encoding) if line.strip())
    return all((name.split(until)[0] if until else name) in known for name in names)


def _is_ucr(path: Path) -> bool:
    first = next(lines(path))
    try:
        return bool([float(field) for field in first.split("\t")])
    except ValueError:
        return False


def _ucr(path: Path, until: str | None, labelled: bool) -> Iterator[Document]:
    for number, line in enumerate(lines(path), start=1):
        name, *steps = line.strip().split("\t")
        if not name:
            continue
        place = f"{path}, line {number}"
        try:
            values = np.array(steps, np.float64)[:, None]
            label = label_name(float(name))
        except ValueError:
            raise DataError(
                f"{place}: holds what is not a number: correct it, or write NaN for a missing value"
            ) from None
        yield Document(None, trimmed(values, place), (label,) if labelled else None)


# -- sentences -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sentence:
    """Its words, and the tag of each; None where tags are not read."""

    words: tuple[str, ...]
    tags: tuple[str, ...] | None


def sentences(
    path: str | os.PathLike[str],
    *,
    word: str | int | None = None,
    tag: str | int | None = None,
    encoding: str = "utf-8",
    labelled: bool = True,
) -> Iterator[Sentence]:
    """The sentences of a CoNLL file: a word a line, its columns apart by tabs or white space, a blank line after a sentence.

    word, tag: columns by number from 1, or from the last one back: -1 (none: the first, the last). In a CoNLL-U file (.conllu)
    also by name (none: form, upos); its comments, multiword ranges and empty nodes are skipped, -DOCSTART- lines elsewhere.
    labelled: False: tags are not read and need not be there.
    Raises DataError: as `lines`; a line with another number of columns, a word without a tag, no sentence, no such column.
    """
    path = Path(path)
    universal = path.name.lower().removesuffix(".gz").endswith(".conllu")
    at = _column(word, "form" if universal else 1, universal)
    tag_at = _column(tag, "upos" if universal else -1, universal) if labelled else None
    missing = (
        universal and tag_at is not None and CONLLU[tag_at % len(CONLLU)] not in MAYBE
    )  # whether "_" says that there is none
    words: list[str] = []
    tags: list[str] = []
    width, found = len(CONLLU) if universal else 0, False
    for number, line in enumerate(lines(path, encoding), start=1):
        if not line.strip():
            if words:
                yield Sentence(tuple(words), tuple(tags) if labelled else None)
                words, tags, found = [], [], True
            continue
        if universal and line.startswith("#"):
            continue
        fields = line.split("\t") if "\t" in line else line.split()
        if fields[0] == "-DOCSTART-" or (universal and re.fullmatch(r"\d+[-.]\d+", fields[0])):
            continue
        width = width or len(fields)
        place = f"{path}, line {number}"
        if len(fields) != width:
            raise DataError(f"{place}: has {len(fields)} column(s), but {width} are expected: mend the line")
        if universal and not fields[0].isdigit():
            raise DataError(f"{place}: the id '{fields[0][:20]}' is no number, nor a range as 3-4: mend the line")
        words.append(_field(fields, at, place, "word", False))
        if tag_at is not None:
            if width == 1:
                raise DataError(f"{place}: the word '{words[-1][:40]}' has no tag: write it in a column of its own")
            tags.append(_field(fields, tag_at, place, f"tag of '{words[-1][:40]}'", missing))
    if words:
        yield Sentence(tuple(words), tuple(tags) if labelled else None)
    elif not found:
        raise DataError(f"{path} holds no sentence: write a word and its tag on a line")


def _column(name: str | int | None, default: str | int, universal: bool) -> int:
    """The index of a column by number or name."""
    name = default if name is None else name
    if str(name).removeprefix("-").isdecimal():
        number = int(name)
        if number == 0:
            raise DataError("there is no column 0: columns are counted from 1, or from the last one back: -1")
        return number - 1 if number > 0 else number
    if not universal:
        raise DataError(f"column '{name}' has no name in this file: give its number, 1 or more, or -1 for the last")
    if str(name).lower() not in CONLLU:
        raise DataError(f"CoNLL-U has no column '{name}': {nearest(str(name), CONLLU)}")
    return CONLLU.index(str(name).lower())


def _field(fields: list[str], at: int, place: str, what: str, unknown: bool) -> str:
    if not -len(fields) <= at < len(fields):
        raise DataError(
            f"{place}: there are {len(fields)} column(s), no column {at + 1 if at >= 0 else at} for the {what}"
        )
    field = fields[at].strip()
    if not field or (unknown and field == "_"):
        raise DataError(f"{place}: there is no {what}: mend the line, or name another column")
    return field
