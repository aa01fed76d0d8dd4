"""The commands of models that read a text and write another: `recurra translate`, `recurra summarise`, `recurra average`."""

import io
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from recurra.cli_text import standard_input
from recurra.errors import RecipeError, RecurraError

Models = Annotated[
    list[Path], typer.Argument(help="model folder; several answer together: the mean of their probabilities")
]
Beam = Annotated[int | None, typer.Option(help="hypotheses side by side; 1: greedy; none: as the model's task has it")]
LengthPenalty = Annotated[float, typer.Option(help="GNMT's: 0 for the most probable text, more for longer ones")]
CoveragePenalty = Annotated[float, typer.Option(help="GNMT's: weight of what was never attended to")]
NoRepeat = Annotated[int | None, typer.Option(help="n-grams of so many tokens may occur once in a text")]
Json = Annotated[bool, typer.Option("--json", help="a line of JSON each, with scores and attention")]


def translate(
    models: Models,
    beam: Beam = None,
    length_penalty: LengthPenalty = 0.6,
    coverage_penalty: CoveragePenalty = 0.0,
    n_best: Annotated[int, typer.Option(help="translations a sentence, no two alike")] = 1,
    no_repeat: NoRepeat = None,
    min_length: Annotated[int, typer.Option(help="tokens at least")] = 0,
    max_length: Annotated[
        int | None, typer.Option(help="tokens at most; none: twice the source's, and 10 more")
    ] = None,
    unknown: Annotated[
        str, typer.Option(help="unknown words: never, replace (by the word attended to), keep")
    ] = "never",
    prefix: Annotated[str | None, typer.Option(help="how every translation begins")] = None,
    phrase: Annotated[list[str] | None, typer.Option(help="what must stand in it; may be given more than once")] = None,
    attention: Annotated[bool, typer.Option("--attention", help="show which words each word attended to")] = False,
    picture: Annotated[
        Path | None,
        typer.Option(help="folder to write pictures of attention to, 1.png for the first line (matplotlib)"),
    ] = None,
    json_output: Json = False,
) -> None:
    """Translate standard input, a sentence a line. A refused line is named on standard error; the exit code is then 2."""
    from recurra.heatmap import save
    from recurra.runtime.translate import as_json, shown
    from recurra.runtime.writer import need
    from recurra.search.settings import Search

    if phrase is not None and not all(map(str.strip, phrase)):
        raise RecipeError(f"--phrase {next(one for one in phrase if not one.strip())!r}: name a word, or leave it out")
    player = _player(models, "translate")
    search = Search(
        beam=max(n_best, player.search.beam) if beam is None else beam,
        length_penalty=length_penalty,
        coverage_penalty=coverage_penalty,
        n_best=n_best,
        no_repeat=no_repeat,
        min_length=min_length,
        max_length=max_length,
        unknown=unknown,  # type: ignore[arg-type]
    )
    if picture is not None:
        need("matplotlib", "plot")
        try:
            picture.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecipeError(f"--picture {picture}: {(error.strerror or 'no folder').lower()}") from None
    ran = _Lines()
    for line in ran:
        with ran.named():
            (answer,) = player.translate(
                [line],
                search,
                prefixes=None if prefix is None else [prefix],
                phrases=None if phrase is None else [phrase],
            )
            if picture is not None:
                save(answer, picture / f"{ran.number}.png")
            if json_output:
                print(as_json(answer), flush=True)
                continue
            print("\n".join([answer.text, *(other.text for other in answer.alternatives)]), flush=True)
            if attention:
                print(shown(answer), flush=True)
    raise SystemExit(ran.code)


def summarise(
    models: Models,
    words: Annotated[int | None, typer.Option(help="about how many words; none: as the model has learnt")] = None,
    beam: Beam = None,
    json_output: Json = False,
) -> None:
    """Summarise standard input, a document a line. A refused line is named on standard error; the exit code is then 2."""
    from recurra.runtime.translate import as_json

    player = _player(models, "summarise")
    search = player.search if beam is None else replace(player.search, beam=beam)
    ran = _Lines()
    for line in ran:
        with ran.named():
            (answer,) = player.summarise([line], search, words=words)
            print(as_json(answer) if json_output else answer.text, flush=True)
    raise SystemExit(ran.code)


def average(
    models: Annotated[list[Path], typer.Argument(help="model folders that one start led to, e.g. of runs of one seed")],
    out: Annotated[Path, typer.Option(help="model folder to write")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing model")] = False,
) -> None:
    """Write the model whose weights are the mean of those of several models of the same shape."""
    from recurra.runtime.average import average as mean

    mean(models, out, overwrite=overwrite)
    print(f"mean of {len(models)} models -> {out}", file=sys.stderr)


def _player(models: list[Path], task: str) -> Any:
    from recurra.runtime.model import load

    first, *others = [load(path, task) for path in models]
    return first.ensemble(*others) if others else first


class _Lines:
    """The lines of standard input; refused ones are named and counted."""

    def __init__(self) -> None:
        self.number, self.code = 0, 0

    def __iter__(self) -> Iterator[str]:
        lines = standard_input()
        if isinstance(lines, io.TextIOWrapper):
            # so that a wrong byte refuses its line, not all that are read with it
            lines.reconfigure(errors="surrogateescape")
        for line in lines:
            self.number += 1
            yield line.strip()

    def named(self) -> "_Lines":
        """A block in which an error of ours refuses the line; a wrong search refuses the command."""
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if not isinstance(error, RecurraError) or isinstance(error, RecipeError):
            return False
        print(f"recurra: line {self.number}: {error}", file=sys.stderr)
        self.code = 2
        return True
