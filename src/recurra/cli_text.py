"""The commands of language models: `recurra generate` and `recurra score`."""

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TextIO

import numpy as np
import typer

from recurra.errors import RecipeError, UnsupportedError

Model = Annotated[Path, typer.Argument(help="model folder")]
CacheSize = Annotated[
    int | None, typer.Option("--cache", help="tokens of a continuous cache: what came lately is likelier to come again")
]
Theta = Annotated[
    float | None, typer.Option(help="cache: how much like the present state a remembered one must be (default: 0.3)")
]
CacheWeight = Annotated[float | None, typer.Option(help="cache: its share in every probability (default: 0.1)")]


def generate(
    model: Model,
    prompt: Annotated[str | None, typer.Option(help="text to go on with; none: begin with a new line")] = None,
    tokens: Annotated[int, typer.Option(help="tokens to write at most")] = 200,
    temperature: Annotated[
        float | None, typer.Option(help="below 1 likelier tokens are favoured, above 1 rarer ones (default: 1)")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="draw from the k most probable tokens")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="draw from the fewest tokens that hold this probability (default: 1)")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(help="draw from tokens at least this share as probable as the best (default: 0)")
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="above 1 recent tokens are less probable (default: 1)")
    ] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="always take the most probable token")] = False,
    beam: Annotated[int | None, typer.Option(help="search the most probable text, with so many side by side")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="end before this text; may be given more than once")] = None,
    seed: Annotated[int | None, typer.Option(help="seed of the draws (default: 0)")] = None,
    state: Annotated[
        Path | None, typer.Option(help="state file: gone on from where it exists, and written; copy it to fork")
    ] = None,
    cache: CacheSize = None,
    theta: Theta = None,
    cache_weight: CacheWeight = None,
) -> None:
    """Write text with a language model, token by token to the terminal."""
    from recurra.runtime.stream import State
    from recurra.search.sampling import Sampling

    player = _player(model, cache, theta, cache_weight)
    drawing = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
    }
    sampling = Sampling(greedy=greedy, **_given(drawing))
    before = None
    if state is not None:
        if state.is_dir() or not state.absolute().parent.is_dir():
            raise RecipeError(f"--state {state}: must be a file in a folder that exists")
        before = State.from_bytes(state.read_bytes(), player.digest) if state.exists() else None
    if beam is not None:
        if state is not None or len(stop or ()) > 1:
            raise RecipeError("--beam compares whole texts: it has no --state, and one --stop at most")
        given = {"seed": seed, "greedy": greedy} | {name.replace("_", "-"): value for name, value in drawing.items()}
        _unused(given, "with --beam, which draws nothing")
        for text, logp in player.beam(prompt, width=beam, tokens=tokens, stop=(stop or [""])[0]):
            print(json.dumps({"text": text, "logp": round(logp, 4)}, ensure_ascii=False))
        return
    if greedy:
        _unused({"seed": seed}, "with --greedy, which draws nothing")
    writing = player.generate(prompt, state=before, tokens=tokens, sampling=sampling, stop=stop or (), seed=seed or 0)
    try:
        sys.stdout.write(prompt or "")
        for piece in writing:
            sys.stdout.write(piece)
            sys.stdout.flush()
    finally:  # what is written so far can be gone on from, also after Ctrl-C
        if state is not None:
            writing.state.save(state)
    sys.stdout.write("\n")


def standard_input() -> TextIO:
    """Standard input, which Ctrl-C stops also while it waits: polars, once imported, has a signal start the read again."""
    if hasattr(signal, "siginterrupt"):
        signal.siginterrupt(signal.SIGINT, True)
    return sys.stdin


def score(
    model: Model,
    text: Annotated[Path | None, typer.Argument(help="text file; none: standard input")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="print JSON Lines")] = False,
    dynamic: Annotated[
        str, typer.Option(help="go on learning while reading: none, output (the output layer alone), all (needs torch)")
    ] = "none",
    rate: Annotated[float | None, typer.Option(help="dynamic: learning rate (default: 0.1)")] = None,
    cache: CacheSize = None,
    theta: Theta = None,
    cache_weight: CacheWeight = None,
) -> None:
    """How surprising a text is to a language model: a line for each token (place, nats, token), and the measures of the whole."""
    from recurra.runtime.dynamic import Dynamic
    from recurra.textfile import lines

    player = _player(model, cache, theta, cache_weight)
    whole = standard_input().read() if text is None else "\n".join([*lines(text, player.encoding), ""])
    if dynamic not in ("none", "output", "all"):
        raise RecipeError(f"--dynamic {dynamic}: must be none, output or all")
    if dynamic == "none":
        _unused({"rate": rate}, "without --dynamic")
    if dynamic == "all":
        found = _learning(player, model, whole, rate)
    else:
        found = player.score(whole, dynamic=Dynamic(**_given({"rate": rate})) if dynamic == "output" else None)
    for place, token, nats in found:
        if json_output:
            print(json.dumps({"place": place, "token": token, "nats": round(nats, 4)}, ensure_ascii=False))
        else:
            print(f"{place}\t{nats:.3f}\t{token!r}")
    print(
        f"{len(found.nats)} tokens: perplexity {found.perplexity:.2f}, {found.nats_per_character:.4f} nats "
        f"({found.bits_per_character:.4f} bits) a character",
        file=sys.stderr,
    )


def _learning(player: Any, model: Path, text: str, rate: float | None) -> Any:
    """The surprise of a network all of whose weights go on learning."""
    from recurra import modelfile
    from recurra.runtime.dynamic import Dynamic

    if player.cache is not None:
        raise RecipeError("--dynamic all has no --cache: use --dynamic output, or one of them alone")
    try:
        from recurra.training.dynamic import restored, surprise
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UnsupportedError(
            "--dynamic all needs torch, which is not installed: pip install 'recurra[train]'"
        ) from None
    plain = player.score(text)
    task = restored(player.manifest, modelfile.read(model).weights, player.codec.size)
    ids = np.append(player.opening, player.codec.encode(text))
    nats = surprise(task, ids, Dynamic(**_given({"rate": rate})))
    return replace(plain, nats=nats[len(nats) - len(plain.nats) :])


def _player(model: Path, cache: int | None, theta: float | None, weight: float | None) -> Any:
    from recurra.runtime.cache import Cache
    from recurra.runtime.model import load

    player = load(model, "generate")
    if cache is not None:
        return player.with_cache(Cache(size=cache, **_given({"theta": theta, "weight": weight})))
    _unused({"theta": theta, "cache-weight": weight}, "without --cache")
    return player


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given: the config knows the others' defaults."""
    return {name: value for name, value in options.items() if value is not None}


def _unused(options: dict[str, Any], where: str) -> None:
    """Raises RecipeError where one of the options was given."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise RecipeError(f"--{name} does nothing {where}: leave it out")
