"""Spec strings: `ef | topk(0.01) | quant(4) | ans` names a codec; read with `ast.parse`, never evaluated."""

import ast
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import get_args, get_type_hints

import numpy as np

from fedpress.compression.codec import Codec, Stage
from fedpress.compression.errors import SpecError, unknown
from fedpress.compression.feedback import ErrorFeedback
from fedpress.compression.frame import MAX_SPEC
from fedpress.compression.layout import Layout
from fedpress.compression.pipeline import Pipeline
from fedpress.compression.registry import FEEDBACK, STAGES, codecs

_MOST_STAGES = 16


@lru_cache(maxsize=256)
def parse(spec: str) -> Codec:
    """Return the codec that `spec` names; `str` of it is the spec in normal form.

    Raises
    ------
    SpecError
        In one line: what is wrong with the spec, and what would be right.

    Examples
    --------
    >>> str(parse("ef|topk( .01 )|quant(bits=4)|ans"))
    'ef | topk(0.01) | quant(4) | ans'
    """
    parts = _parts(spec)
    feedback = parts[0][0] == FEEDBACK
    if feedback and (parts[0][1] or parts[0][2]):
        raise SpecError(f"{FEEDBACK} takes no arguments, in {spec!r}")
    named = [(name, _make(name, args, named_args)) for name, args, named_args in parts[feedback:]]
    if not named:
        raise SpecError(f"{FEEDBACK} wraps a codec: '{FEEDBACK} | topk(0.01) | ans', got {spec!r}")
    text = " | ".join([FEEDBACK] * feedback + [_show(name, stage) for name, stage in named])
    if len(text.encode()) > MAX_SPEC:
        raise SpecError(f"a spec has at most {MAX_SPEC} bytes, got {len(text)}")
    stages = tuple(stage for _, stage in named)
    lossless = [stage.lossless for stage in stages]
    if lossless != sorted(lossless):
        name = named[lossless.index(True)][0]
        raise SpecError(f"{name} is lossless and stands after the stages that are not, in {spec!r}")
    pipeline = Pipeline(stages, text=text)
    # A stage that gets nothing it can work on says so at once, not in the first round.
    update = {"x": np.array([1.0, -2.0], np.float32)}
    pipeline.decode(pipeline.encode(update, {}, np.random.default_rng(0))[0], Layout.of(update))
    return ErrorFeedback(pipeline) if feedback else pipeline


def _parts(spec: str) -> list[tuple[str, list[object], dict[str, object]]]:
    """Return each part's name, positional and named arguments."""
    if len(spec) > MAX_SPEC:
        raise SpecError(f"a spec has at most {MAX_SPEC} characters, got {len(spec)}")
    try:
        node = ast.parse(spec.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SpecError(f"not a spec: {spec!r}; one looks like 'ef | topk(0.01) | quant(4) | ans'") from error
    nodes: list[ast.expr] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        nodes.append(node.right)
        node = node.left
    nodes.append(node)
    if len(nodes) > _MOST_STAGES:
        raise SpecError(f"a spec has at most {_MOST_STAGES} parts, got {len(nodes)}")
    return [_part(part, spec) for part in reversed(nodes)]


def _part(node: ast.expr, spec: str) -> tuple[str, list[object], dict[str, object]]:
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
    return name, args, named


def _literal(node: ast.expr, name: str) -> object:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise SpecError(f"{name} takes numbers, got {ast.unparse(node)!r}") from error
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(f"{name} takes numbers, got {value!r}")
    return value


def _make(name: str, args: list[object], named: dict[str, object]) -> Stage:
    if name == FEEDBACK:
        raise SpecError(f"{FEEDBACK} stands first: it wraps all that follows it")
    make = STAGES[name].make
    takes = {f.name: f for f in fields(make)}  # type: ignore[arg-type]
    usage = f"{name}({', '.join(takes)})" if takes else f"{name} without arguments"
    in_order = [f.name for f in takes.values() if not f.kw_only]
    if len(args) > len(in_order):
        raise SpecError(f"too many arguments for {name}: it is {usage}")
    given = dict(zip(in_order, args, strict=False))
    for key, value in named.items():
        if key not in takes or key in given:
            raise SpecError(f"{name} takes {key!r} {'once' if key in given else 'not'}: it is {usage}")
        given[key] = value
    missing = [f.name for f in takes.values() if f.default is MISSING and f.name not in given]
    if missing:
        raise SpecError(f"{name} lacks {', '.join(missing)}: it is {usage}")
    hints = get_type_hints(make)
    for key, value in given.items():
        kinds = get_args(hints[key]) or (hints[key],)
        if float in kinds:
            given[key] = _as_float(name, key, value)
        elif not isinstance(value, int):
            raise SpecError(f"{name}'s {key} is a whole number, got {value!r}")
    return make(**given)


def _as_float(name: str, key: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError as error:
        raise SpecError(f"{name}'s {key} is too large") from error


def _show(name: str, stage: Stage) -> str:
    shown = []
    for f in fields(stage):  # type: ignore[arg-type]
        value = getattr(stage, f.name)
        if value is not None:
            shown.append(f"{f.name}={value!r}" if f.kw_only else repr(value))
    return f"{name}({', '.join(shown)})" if shown else name
