"""Spec strings, such as `ef | topk(0.01) | uniform(4) | ans`: parsed with `ast.parse`, never evaluated."""

import ast
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, get_args

import numpy as np

from fedpress.common.errors import SpecError, UpdateError, unknown
from fedpress.compression.codec import Codec, Stage
from fedpress.compression.frame import MAX_SPEC
from fedpress.compression.layout import Layout
from fedpress.compression.pipeline import Pipeline
from fedpress.compression.presets import PRESETS
from fedpress.compression.registry import STAGES, WRAPPERS, codecs
from fedpress.compression.wrappers.named import Preset

_MOST_STAGES = 16


@lru_cache(maxsize=256)
def parse(spec: str) -> Codec:
    """Return the codec that a spec describes.

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
    parts = _parts(spec)
    first = parts[0]
    if len(parts) == 1 and first.name in PRESETS:
        takes = _takes(PRESETS[first.name].expand)
        given = _arguments(first, takes)
        return Preset(_show(first.name, given, takes), parse(PRESETS[first.name].expand(**given)))
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
        stages.append(make_stage(**given))
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
        codec.decode(codec.encode(update, codec.init(layout), np.random.default_rng(0))[0], layout)
    return codec


@dataclass(frozen=True)
class _Part:
    """One part of a spec: `topk(0.01)`."""

    name: str
    args: list[object]
    named: dict[str, object]


def _parts(spec: str) -> list[_Part]:
    if len(spec) > MAX_SPEC:
        raise SpecError(f"a spec must have at most {MAX_SPEC} characters, got {len(spec)}")
    try:
        node = ast.parse(spec.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SpecError(f"not a spec: {spec!r}; one looks like 'ef | topk(0.01) | uniform(4) | ans'") from error
    nodes: list[ast.expr] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        nodes.append(node.right)
        node = node.left
    nodes.append(node)
    if len(nodes) > _MOST_STAGES:
        raise SpecError(f"a spec must have at most {_MOST_STAGES} parts, got {len(nodes)}")
    return [_part(part, spec) for part in reversed(nodes)]


def _part(node: ast.expr, spec: str) -> _Part:
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    if not isinstance(call.func, ast.Name):
        raise SpecError(f"not a codec: {ast.unparse(node)!r} in {spec!r}; one looks like 'topk(0.01)'")
    name = call.func.id
    if name not in codecs():
        raise SpecError(unknown("codec", name, codecs()))
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
        raise SpecError(f"{name} takes numbers, got {ast.unparse(node)!r}") from error
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(f"{name} takes numbers, got {value!r}")
    return value


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
        The spec, as `parse` takes it.

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
    codec = parse(spec)
    if codec.stateful:
        raise SpecError(
            f"down must be a codec without state, got {spec!r}: a delta carries what the last one left out, so leave "
            "its ef out"
        )
    return codec
