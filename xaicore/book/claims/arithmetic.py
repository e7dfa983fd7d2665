"""Sums over a paper's own numbers: the rule of the internal-consistency claims, and its tiny evaluator.

An expression in ``claims/pN.yml`` such as ``accuracy * test / extended`` or ``a <= b <= c`` is parsed by Python's own
parser. Allowed are numbers, the given names, ``+ - * /``, brackets, comparison chains and ``and`` between them;
everything else (calls, attributes, powers, subscripts, unknown names) is refused before anything is computed.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping

from pydantic import Field, model_validator
from typing_extensions import override

from xaicore.book.claims.evidence import Evidence, Outcome, Verdict
from xaicore.book.claims.simple_rules import SingleRule
from xaicore.core.units import number

_SIGNS: dict[type[ast.cmpop], str] = {ast.Lt: "<", ast.LtE: "≤", ast.Gt: ">", ast.GtE: "≥", ast.Eq: "="}
_PLAIN = (ast.BinOp, ast.UnaryOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.UAdd, ast.USub, ast.Load)


class Arithmetic(SingleRule):
    """A sum or comparison over the paper's own numbers: ``numbers`` maps short names to reported ids.

    A sum is held against ``expected`` (a number or one of the names) to within ``tolerance``; a comparison
    chain simply holds or does not.
    """

    numbers: dict[str, str] = Field(min_length=1)
    expression: str
    expected: float | str | None = None
    tolerance: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _plain(self) -> Arithmetic:
        body = parse(self.expression, frozenset(self.numbers))
        if bool(_links(body)) != (self.expected is None):
            raise ValueError("a sum needs 'expected'; a comparison must not have it")
        if isinstance(self.expected, str) and self.expected not in self.numbers:
            raise ValueError(f"expected: the name {self.expected!r} is not among its numbers")
        return self

    @override
    def reported_ids(self) -> set[str]:
        return set(self.numbers.values())

    @override
    def words(self) -> str:
        if self.expected is None:
            return f"`{self.expression}` holds for the paper's own numbers"
        expected = f"`{self.expected}`" if isinstance(self.expected, str) else number(self.expected)
        return f"`{self.expression}` is {expected} ± {number(self.tolerance)} from the paper's own numbers"

    @override
    def judge(self, evidence: Evidence) -> Outcome:
        numbers = {name: evidence.reported[identifier] for name, identifier in self.numbers.items()}
        body = parse(self.expression, frozenset(numbers))
        if self.expected is None:
            links = comparisons(body, numbers)
            failing = [text for text, holds in links if not holds]
            shown = ", ".join(failing or [text for text, _ in links])
            if not failing:
                return Outcome(Verdict.REPRODUCED, f"the paper's own numbers agree: {shown}")
            return Outcome(Verdict.NOT_REPRODUCED, f"by the paper's own numbers this is false: {shown}")
        expected = numbers[self.expected] if isinstance(self.expected, str) else self.expected
        result = value(body, numbers)
        agrees = math.isclose(result, expected, rel_tol=1e-12, abs_tol=self.tolerance)
        verdict = Verdict.REPRODUCED if agrees else Verdict.NOT_REPRODUCED
        against = f"against {number(expected, 6)} reported (tolerance {number(self.tolerance)})"
        return Outcome(verdict, f"the paper's own numbers give {number(result, 6)} {against}")


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
    links = _links(body)
    for sign in (sign for link in links for sign in link.ops if type(sign) not in _SIGNS):
        raise ValueError(f"expression {expression!r}: {type(sign).__name__} is not allowed")
    sums = [side for link in links for side in (link.left, *link.comparators)] or [body]
    for node in (node for one in sums for node in ast.walk(one)):
        if isinstance(node, ast.Name):
            if node.id not in names:
                raise ValueError(f"expression {expression!r}: the name {node.id!r} is not among its numbers")
        elif not (
            isinstance(node, _PLAIN) or (isinstance(node, ast.Constant) and type(node.value) in (int, float))
        ):
            raise ValueError(f"expression {expression!r}: {type(node).__name__} is not allowed")
    return body


def value(body: ast.expr, numbers: Mapping[str, float]) -> float:
    """The number that an expression stands for which :func:`parse` has let pass.

    Raises:
        ZeroDivisionError: a division by zero.
    """
    code = compile(ast.fix_missing_locations(ast.Expression(body)), "<expression>", "eval")
    return float(eval(code, {"__builtins__": {}}, dict(numbers)))


def comparisons(body: ast.expr, numbers: Mapping[str, float]) -> list[tuple[str, bool]]:
    """Every link of a comparison, in order, and whether it holds; the expression is true when all of them do."""
    found = []
    for link in _links(body):
        for left, sign, right in zip(
            (link.left, *link.comparators), link.ops, link.comparators, strict=False
        ):
            text = (
                f"{number(value(left, numbers), 6)} {_SIGNS[type(sign)]} {number(value(right, numbers), 6)}"
            )
            found.append((text, bool(value(ast.Compare(left, [sign], [right]), numbers))))
    return found


def _links(body: ast.expr) -> list[ast.Compare]:
    """The comparisons of an expression that is one or several joined by ``and``; none where it is a sum."""
    parts = body.values if isinstance(body, ast.BoolOp) and isinstance(body.op, ast.And) else [body]
    links = [part for part in parts if isinstance(part, ast.Compare)]
    return links if len(links) == len(parts) else []
