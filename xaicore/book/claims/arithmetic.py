"""Sums over a paper's own numbers: a tiny evaluator for the internal-consistency claims.

An expression in ``claims/pN.yml`` such as ``accuracy * test / extended`` or ``a <= b <= c`` is parsed by
Python's own parser and walked here node by node; nothing is ever executed. Allowed are numbers, the given
names, ``+ - * /``, brackets, comparison chains and ``and`` between them. Everything else (calls, attributes,
powers, subscripts, unknown names) is refused when the file is loaded.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from xaicore.core.units import number

_SUMS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS: dict[type[ast.cmpop], tuple[str, Callable[[float, float], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("≤", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: ("≥", operator.ge),
    ast.Eq: ("=", operator.eq),
}


@dataclass(frozen=True)
class Comparison:
    """One link of a comparison chain: the two sides' values, the sign between them, and whether it holds."""

    left: float
    sign: str
    right: float
    holds: bool

    def __str__(self) -> str:
        return f"{number(self.left, 6)} {self.sign} {number(self.right, 6)}"


def parse(expression: str, names: frozenset[str]) -> ast.expr:
    """Parse an expression and refuse everything that is not plain arithmetic.

    Args:
        expression: the text, over numbers and ``names``.
        names: the names the expression may use.

    Returns:
        The body of the parsed expression, safe for :func:`value` or :func:`comparisons`.

    Raises:
        ValueError: the text does not parse, or holds a call, an attribute, an unknown name or the like.
    """
    try:
        body = ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ValueError(f"expression {expression!r} is not valid arithmetic") from error
    if is_comparison(body):
        for link in _links(body):
            for side in (link.left, *link.comparators):
                _refuse(side, names, expression)
            for sign in link.ops:
                if type(sign) not in _COMPARISONS:
                    raise ValueError(f"expression {expression!r}: {type(sign).__name__} is not allowed")
    else:
        _refuse(body, names, expression)
    return body


def is_comparison(body: ast.expr) -> bool:
    """Whether a parsed expression is a comparison (true or false) and not a number."""
    return isinstance(body, (ast.Compare, ast.BoolOp))


def value(body: ast.expr, numbers: Mapping[str, float]) -> float:
    """The number a parsed expression stands for.

    Raises:
        ZeroDivisionError: a division by zero.
    """
    match body:
        case ast.Constant(value=constant):
            return float(constant)  # type: ignore[arg-type]
        case ast.Name(id=name):
            return float(numbers[name])
        case ast.UnaryOp(op=sign, operand=operand):
            inner = value(operand, numbers)
            return -inner if isinstance(sign, ast.USub) else inner
        case ast.BinOp(left=left, op=sum_, right=right):
            return _SUMS[type(sum_)](value(left, numbers), value(right, numbers))
    raise ValueError(f"not plain arithmetic: {ast.dump(body)}")


def comparisons(body: ast.expr, numbers: Mapping[str, float]) -> list[Comparison]:
    """Every link of a comparison, in order; the expression is true when all of them hold."""
    found = []
    for link in _links(body):
        sides = [value(side, numbers) for side in (link.left, *link.comparators)]
        for left, sign, right in zip(sides[:-1], link.ops, sides[1:], strict=True):
            text, holds = _COMPARISONS[type(sign)]
            found.append(Comparison(left, text, right, holds(left, right)))
    return found


def _links(body: ast.expr) -> list[ast.Compare]:
    if isinstance(body, ast.BoolOp) and isinstance(body.op, ast.And):
        return [link for part in body.values for link in _links(part)]
    if isinstance(body, ast.Compare):
        return [body]
    raise ValueError("only comparisons joined by 'and' are allowed")


def _refuse(node: ast.expr, names: frozenset[str], expression: str) -> None:
    match node:
        case ast.Constant(value=int() | float() as constant) if not isinstance(constant, bool):
            return
        case ast.Name(id=name):
            if name in names:
                return
            raise ValueError(f"expression {expression!r}: the name {name!r} is not among its numbers")
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            _refuse(operand, names, expression)
        case ast.BinOp(left=left, op=sum_, right=right) if type(sum_) in _SUMS:
            _refuse(left, names, expression)
            _refuse(right, names, expression)
        case _:
            raise ValueError(f"expression {expression!r}: {type(node).__name__} is not allowed")
