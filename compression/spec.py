"""Spec strings, such as `ef | topk(0.01) | uniform(4) | ans`: parsed with `ast.parse`, never evaluated."""

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, TypeVar, get_args

import numpy as np

from fedpress.common.errors import FrameError, SpecError, UpdateError
from fedpress.compression.codec import Codec, Stage
from fedpress.compression.frame import MAX_SPEC
from fedpress.compression.layout import Layout
from fedpress.compression.pipeline import Pipeline
from fedpress.compression.registry import PRESETS, STAGES, WRAPPERS
from fedpress.compression.third_party import import_codec, known_codec, redefinitions
from fedpress.compression.wrappers.named import Preset

T = TypeVar("T")
_MOST_STAGES = 16
_COLON = "\u02d0"  # a letter that stands for the colon of package.module:object while Python parses a spec


def parse(spec: str) -> Codec:
    """Return the codec that a spec describes, which may come from outside.

    Nothing is imported that this process's user or an installed package did not name: `parse_trusted` does that.

    Parameters
    ----------
    spec : str
        Names of stages with their arguments between `|`, or a preset; see `codecs`.

    Returns
    -------
    Codec
        The codec; `str` of it is the spec in normal form.

    Raises
    ------
    SpecError
        If the spec does not describe a codec. The message is one line, with what must hold.

    Examples
    --------
    >>> str(parse("ef|topk( .01 )|uniform(bits=4)|ans"))
    'ef | topk(0.01) | uniform(4) | ans'
    """
    return _parse(spec, redefinitions())


@lru_cache(maxsize=256)
def _parse(spec: str, _redefinitions: int) -> Codec:
    parts = _parts(spec, known_codec)
    first = parts[0]
    if len(parts) == 1 and first.name in PRESETS:
        expand = PRESETS[first.name].make
        takes = _takes(expand)
        given = _arguments(first, takes)
        return Preset(_show(first.name, given, takes), parse_trusted(_made(first.name, expand, given)))
    rest, shown = parts, []
    wrap: Callable[[Pipeline], Codec] = lambda pipeline: pipeline  # noqa: E731
    if first.name in WRAPPERS:
        make, rest = WRAPPERS[first.name].make, parts[1:]
        takes = {key: parameter for key, parameter in _takes(make).items() if key != "inner"}
        given = _arguments(first, takes)
        shown, wrap = [_show(first.name, given, takes)], partial(make, **given)
        if not rest:
            raise SpecError(f"{first.name} wraps a codec: '{shown[0]} | topk(0.01) | ans', got {spec!r}")
    stages = []
    for part in rest:
        make_stage = _stage(part)
        takes = _takes(make_stage)
        given = _arguments(part, takes)
        stages.append(_made(part.name, make_stage, given))
        shown.append(_show(part.name, given, takes))
    text = " | ".join(shown)
    if len(text.encode()) > MAX_SPEC:
        raise SpecError(f"a spec must have at most {MAX_SPEC} bytes, got {len(text)}")
    lossless = [stage.lossless for stage in stages]
    if lossless != sorted(lossless):
        name = rest[lossless.index(True)].name
        raise SpecError(f"{name} is lossless and must come after the stages that are not, in {spec!r}")
    codec = wrap(Pipeline(tuple(stages), text=text))
    # A stage that cannot work on what it is given raises SpecError here, not in the first round.
    update = {"x": np.array([1.0, -2.0], np.float32)}
    layout = Layout.of(update)
    with suppress(UpdateError):  # an update of this size may be too small for a codec's target
        _made(text, lambda: codec.decode(codec.encode(update, codec.init(layout), np.random.default_rng(0))[0], layout))
    return codec


def parse_trusted(spec: str) -> Codec:
    """Return the codec that a spec of this process's user describes.

    Parameters
    ----------
    spec : str
        The spec, as `parse` takes it. A name `package.module:object` is imported.

    Returns
    -------
    Codec
        The codec. In its text, and so in its frames, an entry point is named `package.module:object`.

    Raises
    ------
    SpecError
        If the spec does not describe a codec, or names what cannot be imported.

    Examples
    --------
    >>> str(parse_trusted("fedpress.compression.stages.identity:Identity"))
    'fedpress.compression.stages.identity:Identity'
    """
    return _parse_trusted(spec, redefinitions())


@lru_cache(maxsize=256)
def _parse_trusted(spec: str, _redefinitions: int) -> Codec:
    return parse(" | ".join(str(part) for part in _parts(spec, import_codec)))


def read_codec(spec: str) -> Codec:
    """Return the codec that a request or a frame from outside names.

    Parameters
    ----------
    spec : str
        The spec, as `parse` takes it.

    Returns
    -------
    Codec
        The codec.

    Raises
    ------
    FrameError
        If the spec does not describe a codec, or one that is not available here.

    Examples
    --------
    >>> str(read_codec("fp16"))
    'fp16'
    """
    try:
        return parse(spec)
    except SpecError as error:
        raise FrameError(f"a spec must name a codec, got {spec[:80]!r}: {error}") from error


@dataclass(frozen=True)
class _Part:
    """One part of a spec: `topk(0.01)`."""

    name: str
    args: list[object]
    named: dict[str, object]

    def __str__(self) -> str:
        arguments = [*map(repr, self.args), *(f"{key}={value!r}" for key, value in self.named.items())]
        return f"{self.name}({', '.join(arguments)})" if arguments else self.name


def _parts(spec: str, name_of: Callable[[str], str]) -> list[_Part]:
    if len(spec) > MAX_SPEC:
        raise SpecError(f"a spec must have at most {MAX_SPEC} characters, got {len(spec)}")
    try:
        node = ast.parse(spec.strip().replace(":", _COLON), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SpecError(f"not a spec: {spec!r}; one looks like 'ef | topk(0.01) | uniform(4) | ans'") from error
    nodes: list[ast.expr] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        nodes.append(node.right)
        node = node.left
    nodes.append(node)
    if len(nodes) > _MOST_STAGES:
        raise SpecError(f"a spec must have at most {_MOST_STAGES} parts, got {len(nodes)}")
    return [_part(part, spec, name_of) for part in reversed(nodes)]


def _part(node: ast.expr, spec: str, name_of: Callable[[str], str]) -> _Part:
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    name = _text(call.func)
    if not re.fullmatch(r"[\w.]+:[\w.]+|\w+", name):
        raise SpecError(f"not a codec: {_text(node)!r} in {spec!r}; one looks like 'topk(0.01)'")
    name = name_of(name)
    args = [_literal(arg, name) for arg in call.args]
    named = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise SpecError(f"{name} takes no ** arguments")
        named[keyword.arg] = _literal(keyword.value, name)
    return _Part(name, args, named)


def _literal(node: ast.expr, name: str) -> object:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise SpecError(f"{name} takes numbers, got {_text(node)!r}") from error
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(f"{name} takes numbers, got {value!r}")
    return value


def _text(node: ast.expr) -> str:
    return ast.unparse(node).replace(_COLON, ":")


def _made(name: str, make: Callable[..., T], given: Mapping[str, Any] = MappingProxyType({})) -> T:
    """Return what `make`, of the codec `name`, makes of its arguments; raise SpecError if it refuses them."""
    try:
        return make(**given)
    except (SpecError, UpdateError):
        raise
    except Exception as error:  # of a stage of another package
        raise SpecError(f"{name}: {error}") from error


def _stage(part: _Part) -> type[Stage]:
    if part.name in WRAPPERS:
        raise SpecError(f"{part.name} must come first: it wraps all that follows it")
    if part.name not in STAGES:
        raise SpecError(f"{part.name} is a whole codec and must be the only part")
    return STAGES[part.name].make


def _takes(make: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(make, eval_str=True).parameters


def _arguments(part: _Part, takes: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """Return the arguments by name, each of the kind that its parameter is annotated with."""
    name = part.name
    usage = f"{name}({', '.join(takes)})" if takes else f"{name} without arguments"
    if part.args and not takes:
        raise SpecError(f"{name} takes no arguments")
    in_order = [key for key, takes_it in takes.items() if takes_it.kind is not inspect.Parameter.KEYWORD_ONLY]
    if len(part.args) > len(in_order):
        raise SpecError(f"too many arguments for {name}: it is {usage}")
    given = dict(zip(in_order, part.args, strict=False))
    for key, value in part.named.items():
        if key not in takes or key in given:
            raise SpecError(f"{name} takes {key!r} {'once' if key in given else 'not'}: it is {usage}")
        given[key] = value
    missing = [key for key, takes_it in takes.items() if takes_it.default is takes_it.empty and key not in given]
    if missing:
        raise SpecError(f"{name} lacks {', '.join(missing)}: it is {usage}")
    filled = {key: given.get(key, takes_it.default) for key, takes_it in takes.items()}
    for key, value in given.items():
        kinds = get_args(takes[key].annotation) or (takes[key].annotation,)
        if float in kinds:
            filled[key] = _as_float(name, key, value)
        elif not isinstance(value, int):
            raise SpecError(f"{name}'s {key} must be a whole number, got {value!r}")
    return filled


def _as_float(name: str, key: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError as error:
        raise SpecError(f"{name}'s {key} must be finite") from error


def _show(name: str, given: Mapping[str, Any], takes: Mapping[str, inspect.Parameter]) -> str:
    shown = [
        f"{key}={value!r}" if takes[key].kind is inspect.Parameter.KEYWORD_ONLY else repr(value)
        for key, value in given.items()
        if value is not None
    ]
    return f"{name}({', '.join(shown)})" if shown else name


def parse_stateless(spec: str) -> Codec:
    """Return the codec of models or of their deltas that a spec describes.

    A delta starts from the model that the node holds, so that the next one carries what the last one left out.

    Parameters
    ----------
    spec : str
        The spec, as `parse_trusted` takes it.

    Returns
    -------
    Codec
        The codec, which is not stateful.

    Raises
    ------
    SpecError
        If the spec does not describe a codec, or the codec keeps a state.

    Examples
    --------
    >>> parse_stateless("lowrank(nmse=0.3) | ans").stateful
    False
    """
    codec = parse_trusted(spec)
    if codec.stateful:
        raise SpecError(
            f"down must be a codec without state, got {spec!r}: a delta carries what the last one left out, so leave "
            "its ef out"
        )
    return codec
