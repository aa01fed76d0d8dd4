"""The command line: each command calls one function; what is heavy is imported inside it."""

import inspect
import io
import json
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from recurra import cli_pairs, cli_text
from recurra.errors import DataError, RecipeError, RecurraError, UnsupportedError

WRITERS = ("translate", "summarise")  # tasks that write one text about another
INTERRUPTED = 130  # exit code of a command that was stopped
Model = Annotated[Path, typer.Argument(help="model folder")]
Data = Annotated[
    Path, typer.Argument(help="CSV, Parquet or JSON Lines file; for text tasks also text files or CoNLL columns")
]
Misuse: Any = typer.BadParameter.__bases__[0]  # UsageError, of click or of typer's own copy of it


class Trainer(typer.core.TyperGroup):
    """`recurra train TASK DATA ...` or `recurra train RECIPE.toml ...`; the options come from the config classes."""

    def list_commands(self, ctx: Any) -> list[str]:
        from recurra.tasks import TASKS

        return list(TASKS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from recurra.tasks import TASKS

        if cmd_name in TASKS:
            return _single(cmd_name, _train_task(cmd_name))
        return None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0].endswith(".toml"):
            return "recipe", _single("recipe", _train_recipe), args
        if args and not args[0].startswith("-"):
            from recurra.training.recipe import parts

            parts(args[0])  # names the nearest task
        return super().resolve_command(ctx, args)


app = typer.Typer(
    help="recurra: the home of recurrent networks. Train on your data, evaluate beside the naive floors, predict, stream.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(
    typer.Typer(
        cls=Trainer, help="Train a model: `recurra train forecast data.csv --horizon 24 --out model`, or a recipe file."
    ),
    name="train",
)


@app.callback()
def _root() -> None:
    pass


@app.command()
def recipe(task: Annotated[str, typer.Argument(help="task, e.g. forecast")]) -> None:
    """Print a commented recipe, to be edited and given to `recurra train`."""
    from recurra.training.recipe import template

    print(template(task), end="")


@app.command()
def evaluate(
    model: Model,
    data: Data,
    origins: Annotated[
        str | None, typer.Option(help="forecast: last: the last horizon of each series; all: every origin, in one pass")
    ] = None,
    season: Annotated[
        int | None, typer.Option(help="forecast: m of MASE and of the seasonal naive; default: M4's")
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="generate: the training text, from which the n-gram floors learn")
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(help="translate, summarise: file with a line for each of the data's, where that is plain text"),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Score a model on a table or text, beside the naive floors."""
    from recurra.runtime.model import load

    player = load(model)
    _only(("forecast",), player, {"season": season, "origins": origins})
    _only(("generate",), player, {"train": train})
    _only(WRITERS, player, {"target": target})
    if target is not None:
        scores = player.evaluate(data, target)
    elif player.manifest["task"] == "generate":
        scores = player.evaluate(data, train=train)
    else:
        scores = (
            player.evaluate(data, origins=origins or "last", season=season)
            if _forecasts(player)
            else player.evaluate(data)
        )
    if json_output:
        print(json.dumps(scores.to_json()))
        return
    from rich.console import Console

    from recurra.report import score_table

    Console().print(score_table(scores))


@app.command()
def predict(
    model: Model,
    data: Data,
    out: Annotated[
        Path,
        typer.Option(help="file to write: .csv, .parquet or .jsonl; translate, summarise: also .txt, a line each"),
    ],
    horizon: Annotated[
        int | None, typer.Option(help="forecast: steps ahead; beyond the trained horizon by sampled trajectories")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="forecast: seed of the trajectories (default: 0)")] = None,
    beam: Annotated[int | None, typer.Option(help="translate, summarise: hypotheses side by side; 1: greedy")] = None,
    length_penalty: Annotated[
        float | None,
        typer.Option(help="translate, summarise: GNMT's, 0 for the most probable text, more for longer ones"),
    ] = None,
    n_best: Annotated[int | None, typer.Option(help="translate: translations a sentence, no two alike")] = None,
) -> None:
    """Forecast every series of a table from its last observation; classify or tag every text, translate or summarise it."""
    from recurra.runtime.model import load
    from recurra.runtime.stream import store
    from recurra.tablefile import check_folder, check_out, write

    player = load(model)
    lines = out.suffix == ".txt" and player.manifest["task"] in WRITERS
    (check_folder if lines else check_out)(out)
    if out.resolve() == data.resolve():
        raise RecipeError(f"--out {out}: is the file that is read: write another")
    _only(("forecast",), player, {"horizon": horizon, "seed": seed})
    given = {"beam": beam, "length-penalty": length_penalty}
    _only(WRITERS, player, given)
    _only(("translate",), player, {"n-best": n_best})
    if lines and (n_best or 1) > 1:
        raise RecipeError(f"--n-best {n_best}: {out} has one line a sentence: write a .csv, .parquet or .jsonl file")
    if player.manifest["task"] in WRITERS:
        asked = {
            name.replace("-", "_"): value for name, value in (given | {"n-best": n_best}).items() if value is not None
        }
        asked.setdefault("beam", max(n_best or 1, player.search.beam))
        frame = player.predict(data, replace(player.search, **asked))
    else:
        frame = player.predict(data, horizon, seed=seed or 0) if _forecasts(player) else player.predict(data)
    if player.manifest["task"] == "classify" and player.many and ".csv" in out.suffixes:
        import polars as pl

        frame = frame.with_columns(pl.col("label").list.join(player.columns["separator"] or ","))
    try:
        if lines:
            best = frame if "rank" not in frame.columns else frame.filter(frame["rank"] == 1)
            store(out, "".join(f"{text}\n" for text in best["text"]).encode())
        else:
            write(frame, out)
    except OSError as error:
        raise DataError(f"{out} can't be written: {error.strerror or error}") from None
    print(f"{len(frame)} rows -> {out}", file=sys.stderr)


@app.command()
def stream(
    model: Model,
    state: Annotated[
        Path | None,
        typer.Option(
            help="forecast: state file, read where it exists, written at the end and every --save-every lines"
        ),
    ] = None,
    source: Annotated[Path | None, typer.Option("--input", help="file to read; default: standard input")] = None,
    history: Annotated[Path | None, typer.Option(help="table that new streams start from, instead of cold")] = None,
    save_every: Annotated[int, typer.Option(help="lines between two writes of the state file", min=1)] = 1000,
) -> None:
    """One observation a line in (JSON Lines, or CSV with a header), one forecast a line out, in the same format; text in,
    a verdict or tag a word out.

    A refused line (out of order, repeated, broken) is named on standard error and changes nothing; the exit code is then 2.
    """
    from recurra.runtime.lines import serve
    from recurra.runtime.live import Live
    from recurra.runtime.model import load

    player = load(model)
    if not _forecasts(player):
        _only(("forecast",), player, {"state": state, "history": history})
        with _lines(source) as given:
            try:
                raise SystemExit(2 if player.lines(given, sys.stdout) else 0)
            except UnicodeDecodeError as error:
                raise RecipeError(
                    f"{source or 'standard input'} is not UTF-8 text (byte {error.start}): convert it"
                ) from None
    if state is None:
        raise RecipeError("a stream of forecasts needs --state FILE, to go on where it stopped")
    if state.is_dir():
        raise RecipeError(f"--state {state} is a folder: give the path of a file")
    if state.exists():
        live = Live.from_bytes(player, state.read_bytes())
    else:
        live = Live(player)
        if not state.parent.is_dir():
            raise RecipeError(f"--state {state}: there is no folder '{state.parent}'")
    if history is not None:
        ids, whole = player.observe(history)
        for i, name in enumerate(ids):
            live.states.setdefault(name, whole.take([i]))

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    with _lines(source) as given:
        raise SystemExit(2 if serve(live, given, sys.stdout, state, save_every) else 0)


def _forecasts(player: Any) -> bool:
    return player.manifest["task"] == "forecast"


def _only(tasks: tuple[str, ...], player: Any, options: dict[str, Any]) -> None:
    """Raises RecipeError where an option for models of `tasks` is given with another."""
    task = player.manifest["task"]
    for name, value in options.items():
        if value is not None and task not in tasks:
            of = "' or '".join(tasks)
            raise RecipeError(f"--{name} {value} is for models of '{of}', this one is of '{task}': leave it out")


def _lines(source: Path | None) -> Any:
    """The lines of a file, or of standard input."""
    try:
        return nullcontext(cli_text.standard_input()) if source is None else source.open(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"--input {source}: {(error.strerror or 'no such file').lower()}") from None


@app.command()
def info(model: Model, json_output: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """What a model is: task, inputs, sizes, scores, format number, digest."""
    from recurra.report import describe
    from recurra.runtime.model import load

    facts = describe(model, load(model))
    if json_output:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        if name == "scores" and isinstance(value, dict):
            over = f"mean over {value['series']} series" if "series" in value else value["caption"]
            print(f"{'scores':<12} {value['part']} part, {over}")
            for row, found in value["rows"].items():
                print(f"{'':<12} {row:<15} " + "  ".join(f"{k} {v:.4g}" for k, v in found.items() if v is not None))
        else:
            print(f"{name:<12} {value}")


app.command()(cli_text.generate)
app.command()(cli_text.score)
app.command()(cli_pairs.translate)
app.command()(cli_pairs.summarise)
app.command()(cli_pairs.average)


@app.command()
def kernels(
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="10 seconds against torch")] = True,
    json_output: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """What this machine gives: instruction set, threads, the kernel of each cell and option, and the speed beside torch's.

    The environment variable RECURRA_ISA (portable, avx2 or avx512) asks for less than the machine has.
    """
    try:
        from recurra.machine import shown, survey
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UnsupportedError("the kernels need torch, which is not installed: pip install 'recurra[train]'") from None
    facts = survey(measure=measure)
    print(json.dumps(facts) if json_output else shown(facts))


def main() -> None:
    """Run the command line: an error of ours, or a wrong option, is one line and exit code 2; a warning is one line, too."""
    warnings.formatwarning = lambda message, *_: f"recurra: {message}\n"
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        raise SystemExit(code)
    except RecurraError as error:
        print(f"recurra: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except Misuse as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            help_of = error.ctx.command_path if error.ctx is not None else "recurra"
            text = " ".join(error.format_message().split()).removesuffix(".")
            print(f"recurra: {text[:1].lower()}{text[1:]}: see '{help_of} --help'", file=sys.stderr)
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "lightning"):
            raise
        print(
            f"recurra: this needs {error.name}, which is not installed: pip install 'recurra[train]'", file=sys.stderr
        )
        raise SystemExit(2) from None
    except UnicodeDecodeError as error:  # files are read with their names
        print(f"recurra: standard input is not UTF-8 text ({error.reason}): convert it first", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except (KeyboardInterrupt, typer.Abort):
        more = "; go on with --resume" if sys.argv[1:2] == ["train"] else ""
        print(f"recurra: interrupted{more}", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


# -- train ------------------------------------------------------------------------------------------------------


def _single(name: str, function: Callable[..., None]) -> Any:
    one = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    one.command(name)(function)
    return typer.main.get_command(one)


def _control() -> list[inspect.Parameter]:
    """The options that are no part of a recipe."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter("out", keyword, default=typer.Option(..., help="model folder to write"), annotation=Path),
        inspect.Parameter(
            "overwrite",
            keyword,
            default=typer.Option(False, "--overwrite", help="replace an existing model"),
            annotation=bool,
        ),
        inspect.Parameter(
            "resume",
            keyword,
            default=typer.Option(False, "--resume", help="go on from the last checkpoint of an interrupted run"),
            annotation=bool,
        ),
        inspect.Parameter(
            "devices", keyword, default=typer.Option(1, "--devices", help="devices a machine"), annotation=int
        ),
        inspect.Parameter("nodes", keyword, default=typer.Option(1, "--nodes", help="machines"), annotation=int),
        inspect.Parameter(
            "report", keyword, default=typer.Option(None, help="HTML report to write"), annotation=Path | None
        ),
    ]


def _train_task(task: str) -> Callable[..., None]:
    """The command `recurra train <task>`."""
    from recurra.options import options, parsed
    from recurra.training.recipe import Recipe, build, parts

    made = list(options(task))

    def command(**given: Any) -> None:
        chosen: dict[str, dict[str, Any]] = {part: {} for part in parts(task)}
        sources = [str(given[name]) for name in ("data", "source") if given[name] is not None]
        if len(sources) != 1:
            raise RecipeError(f"give the data once, as an argument or as --source FILE, not {len(sources)} times")
        chosen["data"]["source"] = sources[0]
        for part, name, _ in made:
            value = given[name]
            if value is None:
                continue
            chosen[part][name] = parsed(parts(task)[part], name, value)
        _run(Recipe(**{part: build(cls, chosen[part]) for part, cls in parts(task).items()}), given)

    kind = Annotated[Path | None, *Data.__metadata__]  # type: ignore[attr-defined]
    data = inspect.Parameter("data", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind, default=None)
    named = typer.Option(None, help="the data, by name instead of as an argument")
    source = inspect.Parameter("source", inspect.Parameter.KEYWORD_ONLY, annotation=Path | None, default=named)
    parameters = [data, source, *_control(), *(parameter for _, _, parameter in made)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = (parts(task)["task"].__doc__ or "").splitlines()[0]
    return command


def _train_recipe(
    file: Annotated[Path, typer.Argument(help="recipe file (TOML); `recurra recipe forecast` prints one")],
    out: Annotated[Path, typer.Option(help="model folder to write")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing model")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on from the last checkpoint of an interrupted run")
    ] = False,
    devices: Annotated[int, typer.Option(help="devices a machine")] = 1,
    nodes: Annotated[int, typer.Option(help="machines")] = 1,
    report: Annotated[Path | None, typer.Option(help="HTML report to write")] = None,
) -> None:
    """Train the recipe of a TOML file."""
    from recurra.training.recipe import from_toml

    control = {"overwrite": overwrite, "resume": resume, "devices": devices, "nodes": nodes}
    _run(from_toml(file), {"out": out, "report": report, **control})


def _run(chosen: Any, given: dict[str, Any]) -> None:
    from recurra.training.fit import train

    report = given["report"]
    if report is not None and (report.is_dir() or not report.absolute().parent.is_dir()):
        raise RecipeError(f"--report {report}: must be a file in a folder that exists")
    unscored = chosen.name != "forecast" and chosen.data.validation == 0
    if report is not None and unscored:
        raise RecipeError(f"--report {report}: without a validation part there is nothing to report")
    model = train(
        chosen.task,
        chosen.data,
        core=chosen.core,
        fit=chosen.fit,
        out=given["out"],
        overwrite=given["overwrite"],
        resume=given["resume"],
        devices=given["devices"],
        nodes=given["nodes"],
        progress=sys.stderr.isatty() or sys.stdout.isatty(),
    )
    if model is None:  # another process of a distributed run writes
        return
    from rich.console import Console

    from recurra.report import stored_scores

    table = stored_scores(given["out"])
    if table is not None:
        Console().print(table)
    print(f"model -> {given['out']}", file=sys.stderr)
    if given["report"] is not None:
        from recurra.report import stored, write_report, write_score_report

        if _forecasts(model):
            write_report(given["report"], model, chosen.data.read())
        elif (scored := stored(given["out"])) is not None:
            write_score_report(given["report"], given["out"], model, scored)
        else:
            raise RecipeError(
                f"--report {given['report']}: the validation part could not be scored, so there is nothing to report"
            )
        print(f"report -> {given['report']}", file=sys.stderr)
