"""Expressions of variables: arithmetic, conditions and draws, read without executing code.

The text is parsed by Python's :mod:`ast` after every name has been replaced by a placeholder, so
that names may be keywords, contain spaces, or be quoted; of the tree, only the nodes listed here
are accepted. Nothing is evaluated but arithmetic of tensors.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from deepscm_pl.checks import ASIDE, nearest
from deepscm_pl.interventions.draws import FAMILIES, TRAIN, Draw
from deepscm_pl.numerals import shortest
from deepscm_pl.variables import Change, Seen, Variable

__all__ = [
    "RESERVED",
    "Expression",
    "Reference",
    "UnreadableError",
    "class_text",
    "in_millions",
    "listed",
    "plain_signs",
    "quote_class",
    "quote_variable",
    "quoted",
    "read_expression",
    "unquoted",
]

RESERVED = frozenset({"and", "or", "not", "in", "if", "else", "where", "factual"})
"""Words of the grammar, which are quoted where they are names."""

_LONGEST, _DEEPEST = 2000, 50
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
QUOTED = r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`"
_TOKEN = re.compile(
    rf"\s+|(?P<quoted>{QUOTED})|(?P<number>{_NUMBER})(?P<million>\s+million\b)?(?![\w.])"
    r"|(?P<name>[^\W\d]\w*)|(?P<sign>\*\*|<=|>=|==|!=|[-+*/<>=(),])"
)
_BARE_CLASS = re.compile(r"(?!=)[\w≥≤<>+/.:#%&-]+(?: [\w≥≤<>+/.:#%&-]+)*")
_PLAIN_SIGNS = str.maketrans({"−": "-", "×": "*", "·": "*", "≤": "<=", "≥": ">=", "≠": "!="})

_KEEP, _FACTUAL = "_keep", "factual"
_WORDS = {"and", "or", "not", "in", "if", "else"}

_FUNCTIONS: dict[str, tuple[int, int | None, Callable[..., Tensor]]] = {
    "log": (1, 1, torch.log),
    "log10": (1, 1, torch.log10),
    "exp": (1, 1, torch.exp),
    "sqrt": (1, 1, torch.sqrt),
    "abs": (1, 1, torch.abs),
    "round": (1, 1, torch.round),
    "floor": (1, 1, torch.floor),
    "ceil": (1, 1, torch.ceil),
    "min": (2, None, torch.minimum),
    "max": (2, None, torch.maximum),
    "clip": (3, 3, lambda x, low, high: torch.minimum(torch.maximum(x, low), high)),
}
"""The functions by name: smallest and largest number of arguments (None for any), and function."""

_OPERATORS: dict[type[ast.AST], Callable[..., Tensor]] = {
    ast.Add: torch.add,
    ast.Sub: torch.sub,
    ast.Mult: torch.mul,
    ast.Div: torch.div,
    ast.Pow: torch.pow,
    ast.USub: torch.neg,
    ast.UAdd: torch.clone,
    ast.Lt: torch.lt,
    ast.LtE: torch.le,
    ast.Gt: torch.gt,
    ast.GtE: torch.ge,
    ast.Eq: torch.eq,
    ast.NotEq: torch.ne,
    ast.And: torch.logical_and,
    ast.Or: torch.logical_or,
    ast.Not: torch.logical_not,
}


class UnreadableError(ValueError):
    """An expression that cannot be read; the message has no statement before it."""


class Reference(NamedTuple):
    """What a name in an expression stands for.

    Attributes:
        kind: ``value`` of another variable under the other changes, ``own`` value, ``factual``
            value, value ``before`` the intervention, ``class``, or ``draw``.
        name: The variable or the class; for ``factual`` and ``before``, empty for the own one.
        number: The index of the class or of the draw.
    """

    kind: str
    name: str = ""
    number: int = 0


@dataclass(frozen=True)
class Expression(Change):
    """A function of a variable, of others, of factual values, and of draws, written as text.

    Made by :func:`~deepscm_pl.interventions.parse_do`; two are equal if their texts are.

    Args:
        text: The expression in its standard form.
        tree: The syntax tree, in which every name is a placeholder.
        references: What each placeholder stands for.
        draws: The distributions that it draws from.

    Example:
        >>> from deepscm_pl import Variable, parse_do
        >>> do = parse_do("age = 0.9*age+3", {"age": Variable("age")})
        >>> do["age"], do["age"].apply(torch.tensor([10.0]), Seen())
        (Expression('0.9 * age + 3'), tensor([12.]))
    """

    text: str
    tree: ast.expr = field(compare=False)
    references: Mapping[str, Reference] = field(compare=False)
    draws: tuple[Any, ...] = field(default=(), compare=False)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def __str__(self) -> str:
        return self.text

    def _names(self, kind: str) -> tuple[str, ...]:
        found = (each.name for each in self.references.values() if each.kind == kind)
        return tuple(dict.fromkeys(found))

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """Other variables whose values under the other changes it reads."""
        return self._names("value")

    @property
    def factual(self) -> tuple[str, ...]:  # type: ignore[override]
        """Variables whose factual values it reads."""
        return self._names("factual")

    @property
    def before(self) -> tuple[str, ...]:  # type: ignore[override]
        """Variables whose values before the intervention it reads."""
        return self._names("before")

    @property
    def uses_value(self) -> bool:  # type: ignore[override]
        """Whether it depends on the value of its own variable."""
        return any(each.kind == "own" for each in self.references.values())

    def with_draws(self, draws: Sequence[Any]) -> Expression:
        """Replace the distributions."""
        return replace(self, draws=tuple(draws))

    @property
    def set_draws(self) -> tuple[int, ...]:
        """The draws that become the value as they are, and so must be inside of its domain."""
        found = [self.references.get(getattr(each, "id", "")) for each in _branches(self.tree)]
        return tuple(each.number for each in found if each is not None and each.kind == "draw")

    def apply(self, value: Tensor, seen: Seen) -> Tensor:
        """Compute the expression, ``(*batch, *event)``."""
        return self._compute(self.tree, value, seen)

    def _compute(self, node: ast.AST, value: Tensor, seen: Seen) -> Tensor:
        def of(child: ast.AST) -> Tensor:
            return self._compute(child, value, seen)

        match node:
            case ast.Constant():
                number = float(str(node.value))
                return torch.tensor(number, dtype=torch.float64, device=value.device)
            case ast.Name():
                return self._look_up(self.references[node.id], value, seen)
            case ast.UnaryOp():
                return _OPERATORS[type(node.op)](of(node.operand))
            case ast.BinOp():
                return _OPERATORS[type(node.op)](of(node.left), of(node.right))
            case ast.BoolOp():
                return _folded(_OPERATORS[type(node.op)], [of(each) for each in node.values])
            case ast.IfExp():
                return torch.where(of(node.test), of(node.body), of(node.orelse))
            case ast.Call(func=ast.Name(id=name)):
                function = _FUNCTIONS[name][2]
                arguments = [of(each) for each in node.args]
                if name in ("min", "max"):
                    return _folded(function, arguments)
                return function(*arguments)
            case ast.Compare():
                lefts, terms = [node.left, *node.comparators], []
                for left, operator, right in zip(lefts, node.ops, node.comparators, strict=False):
                    if isinstance(operator, ast.In | ast.NotIn):
                        members = right.elts if isinstance(right, ast.Tuple) else [right]
                        inside = _folded(torch.logical_or, [of(left) == of(x) for x in members])
                        terms.append(inside ^ isinstance(operator, ast.NotIn))
                    else:
                        terms.append(_OPERATORS[type(operator)](of(left), of(right)))
                return _folded(torch.logical_and, terms)
        raise TypeError(f"unexpected {type(node).__name__} in an expression.")

    @staticmethod
    def _look_up(reference: Reference, value: Tensor, seen: Seen) -> Tensor:
        match reference.kind:
            case "own":
                return value
            case "value":
                return seen.values[reference.name]
            case "factual" | "before":
                return seen.before[reference.name]
            case "draw":
                return seen.draws[reference.number]
        return torch.tensor(float(reference.number), dtype=torch.float64, device=value.device)


def _folded(function: Callable[..., Tensor], terms: Sequence[Tensor]) -> Tensor:
    found = terms[0]
    for term in terms[1:]:
        found = function(found, term.to(found.dtype) if found.dtype.is_floating_point else term)
    return found


def _branches(node: ast.expr) -> Iterator[ast.expr]:
    """The expressions of which one is the value."""
    if isinstance(node, ast.IfExp):
        yield from _branches(node.body)
        yield from _branches(node.orelse)
    else:
        yield node


def in_millions(text: str) -> str:
    """A number such as ``1.2 million`` as a numeral."""
    number, is_million, _ = text.partition("million")
    return str(Decimal(number.strip()).scaleb(6)) if is_million else text


def plain_signs(text: str) -> str:
    """Replace signs of titles, such as ``×`` and ``−``, by those of programs."""
    return text.translate(_PLAIN_SIGNS)


def quoted(text: str, mark: str = "'") -> str:
    """Quote a name; the mark is doubled inside."""
    return f"{mark}{text.replace(mark, 2 * mark)}{mark}"


def unquoted(text: str) -> str | None:
    """The name inside of quotes, or None if the text is not one quoted name."""
    if not re.fullmatch(QUOTED, text, re.DOTALL):
        return None
    return text[1:-1].replace(2 * text[0], text[0])


def quote_class(name: str) -> str:
    """A name of a class as in texts: in quotes."""
    return quoted(name)


def class_text(name: str) -> str:
    """A name of a class as after ``variable=``: as it is, or in quotes where that is needed."""
    words = set(re.findall(r"\w+", name))
    return name if _BARE_CLASS.fullmatch(name) and not words & RESERVED else quoted(name)


def listed(variable: Variable) -> str:
    """The names of the classes of a variable, as they are written in texts."""
    return ", ".join(map(class_text, variable.classes))


def quote_variable(name: str) -> str:
    """A name of a variable as in texts: in backquotes, unless it is an identifier."""
    is_plain = re.fullmatch(r"[^\W\d]\w*", name) and name not in RESERVED
    return name if is_plain else quoted(name, "`")


@dataclass
class _Reader:
    """A reader of one expression, for the variable that gets its value."""

    target: Variable
    variables: Mapping[str, Variable] | None
    own: str
    draws_train: bool
    before: bool
    words: dict[str, tuple[str, str]] = field(default_factory=dict)
    """For each placeholder the name, and its quotes."""
    references: dict[str, Reference] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    draws: list[Draw] = field(default_factory=list)

    def placeholders(self, text: str, otherwise: str) -> str:
        """Replace names by placeholders, and end every condition by ``otherwise``."""
        parts: list[str] = []
        place = open_ifs = 0
        calls: list[str] = []  # the name before each open bracket
        last = ""
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None:
                bad = re.match(r"\S+", text[place:])
                raise UnreadableError(
                    f"cannot read {bad[0] if bad else text[place:]!r} in {text!r}; quote names of "
                    "classes, as in sex == '3xTG'"
                )
            place = found.end()
            part = found[0]
            if found["quoted"]:
                part = self._placeholder(unquoted(part) or "", part[0])
            elif found["number"]:
                number = float(in_millions(part))
                if number == float("inf"):
                    raise UnreadableError(f"cannot read {part!r}, which is too large")
                part = repr(number)
            elif found["name"] and part in _WORDS:
                open_ifs += (part == "if") - (part == "else") if not calls else 0
            elif found["name"]:
                part = self._placeholder(part, "")
            if part == "(":
                calls.append(last)
            elif part == ")" and calls:
                calls.pop()
            is_share = bool(calls) and calls[-1] == "categorical"
            last = found[0].strip() or last
            parts.append("==" if part == "=" and not is_share else part)
        return "".join(f"{part} " if part.strip() else part for part in parts) + (
            f" else {otherwise}" * open_ifs
        )

    def _placeholder(self, name: str, mark: str) -> str:
        key = f"_{len(self.words)}"
        self.words[key] = name, mark
        return key

    def read(self, text: str, condition: bool, change: tuple[str, str]) -> Expression:
        """Read an expression whose value is a number, or a condition."""
        operator, neutral = change
        if len(text) > _LONGEST:
            raise UnreadableError(f"expected at most {_LONGEST} characters, but got {len(text)}")
        source = self.placeholders(plain_signs_outside_quotes(text), neutral or _KEEP).strip()
        if operator:
            source = f"{self._placeholder(self.own, '`')} {operator} ({source})"
        try:
            tree = ast.parse(source, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise UnreadableError(f"cannot read {text.strip()!r}") from None
        tree = self._checked(tree, "condition" if condition else "value", 0)
        shown = _unparsed(tree, self.texts)
        return Expression(shown, tree, self.references, tuple(self.draws))

    def _checked(self, node: ast.expr, wanted: str, depth: int) -> ast.expr:
        """Return a tree of allowed nodes; ``wanted`` is ``value``, ``number`` or ``condition``."""
        if depth > _DEEPEST:
            raise UnreadableError(f"expected at most {_DEEPEST} levels of parentheses")

        def of(child: ast.expr, kind: str) -> ast.expr:
            return self._checked(child, kind, depth + 1)

        is_condition = isinstance(node, ast.Compare | ast.BoolOp) or (
            isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        )
        if is_condition != (wanted == "condition"):
            what = "a condition, such as age > 60" if wanted == "condition" else "a number"
            raise UnreadableError(f"expected {what}, but got {self._shown(node)!r}")
        match node:
            case ast.Constant():
                return self._constant(node, wanted)
            case ast.Name():
                return self._name(node, wanted)
            case ast.UnaryOp():
                kind = "condition" if isinstance(node.op, ast.Not) else "number"
                if type(node.op) in _OPERATORS:
                    return ast.UnaryOp(node.op, of(node.operand, kind))
            case ast.BinOp():
                if type(node.op) in _OPERATORS:
                    return ast.BinOp(of(node.left, "number"), node.op, of(node.right, "number"))
            case ast.BoolOp():
                return ast.BoolOp(node.op, [of(each, "condition") for each in node.values])
            case ast.IfExp():
                if wanted != "condition":
                    return ast.IfExp(
                        of(node.test, "condition"), of(node.body, wanted), of(node.orelse, wanted)
                    )
            case ast.Compare():
                return self._comparison(node, of)
            case ast.Call():
                return self._call(node, wanted, of)
        self._refuse(node)

    def _constant(self, node: ast.Constant, wanted: str) -> ast.expr:
        # All numbers of a text are finite floats here; True, None and texts are no numbers.
        if type(node.value) is not float:
            self._refuse(node)
        if wanted == "value" and self.target.classes:
            return self._class(self.target, shortest(node.value))
        return ast.Constant(float(str(node.value)))

    def _name(self, node: ast.Name, wanted: str) -> ast.expr:
        if node.id == _KEEP:
            return self._refer(Reference("own"), _KEEP)
        name, mark = self.words[node.id]
        if name == TRAIN and self.draws_train and wanted == "value" and not mark:
            return self._draw(Draw(TRAIN))
        is_class = mark in ("'", '"') or name in self.target.classes
        if wanted == "value" and mark != "`" and self.target.classes and is_class:
            return self._class(self.target, name)
        if name == _FACTUAL and not mark and not self.before:
            return self._refer(Reference("factual"), _FACTUAL)
        return self._variable(name, "before" if self.before else "value")

    def _variable(self, name: str, kind: str) -> ast.expr:
        is_own = name == self.own
        if name not in (self.variables or {self.own}):
            self._unknown(name)
        text = quote_variable(name)
        if any(name in each.classes for each in (self.variables or {}).values()):
            text = quoted(name, "`")
        if kind == "factual":
            reference = Reference(kind, "" if is_own else name)
            return self._refer(reference, _FACTUAL if is_own else f"{_FACTUAL}({text})")
        if is_own and kind == "value":
            return self._refer(Reference("own"), text)
        return self._refer(Reference(kind, name), text)

    def _unknown(self, name: str) -> NoReturn:
        known = list(self.variables or [self.own])
        words = known + [each for v in (self.variables or {}).values() for each in v.classes]
        raise UnreadableError(
            f"{name!r} is no variable{nearest(name, words, ASIDE)}; the variables are "
            f"{', '.join(known)}"
        )

    def _class(self, variable: Variable, text: str) -> ast.expr:
        index = variable.class_index(text)
        if index is None:
            raise UnreadableError(
                f"expected a class of {variable.name}, one of {listed(variable)}, but "
                f"got {text!r}{nearest(text, variable.classes, ASIDE)}"
            )
        name = variable.classes[index]
        is_plain = re.fullmatch(r"[^\W\d]\w*", name) and name not in RESERVED
        is_variable = name in (self.variables or ()) or name in (self.own, TRAIN)
        shown = name if is_plain and not is_variable else quoted(name)
        return self._refer(Reference("class", name, index), shown)

    def _refer(self, reference: Reference, text: str) -> ast.expr:
        key = f"_r{len(self.references)}"
        self.references[key] = reference
        self.texts[key] = text
        return ast.Name(key)

    def _draw(self, draw: Draw) -> ast.expr:
        self.draws.append(draw)
        text = f"{TRAIN}()" if draw.family == TRAIN and not self.draws_train else str(draw)
        return self._refer(Reference("draw", str(draw), len(self.draws) - 1), text)

    def _comparison(
        self, node: ast.Compare, of: Callable[[ast.expr, str], ast.expr]
    ) -> ast.Compare:
        terms = [node.left, *node.comparators]
        named = [self._classes_of(term) for term in terms]
        variable = next((each for each in named if each is not None), None)
        found: list[ast.expr] = []
        for term, own in zip(terms, named, strict=True):
            if variable is None or own is not None:
                found.append(self._members(term, lambda each: of(each, "number")))
            else:
                found.append(self._members(term, lambda each: self._class_of(variable, each)))
        if not all(
            type(each) in _OPERATORS or isinstance(each, ast.In | ast.NotIn) for each in node.ops
        ):
            self._refuse(node)
        return ast.Compare(found[0], node.ops, found[1:])

    def _members(self, node: ast.expr, of: Callable[[ast.expr], ast.expr]) -> ast.expr:
        if isinstance(node, ast.Tuple) and node.elts:
            return ast.Tuple([of(each) for each in node.elts])
        return of(node)

    def _classes_of(self, node: ast.expr) -> Variable | None:
        """The variable that a term of a comparison is, if it has named classes."""
        if (
            isinstance(node, ast.Call)
            and len(node.args) == 1
            and not node.keywords
            and self.words.get(getattr(node.func, "id", "")) == (_FACTUAL, "")
        ):
            node = node.args[0]
        if not isinstance(node, ast.Name) or node.id not in self.words:
            return None
        name, mark = self.words[node.id]
        if name == _FACTUAL and not mark:
            name = self.own
        found = (self.variables or {}).get(name) if mark in ("", "`") else None
        return found if found is not None and found.classes else None

    def _class_of(self, variable: Variable, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.Name) and node.id in self.words:
            return self._class(variable, self.words[node.id][0])
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return self._class(variable, shortest(node.value))
        raise UnreadableError(
            f"expected a class of {variable.name}, one of {listed(variable)}, but got "
            f"{self._shown(node)!r}"
        )

    def _call(
        self, node: ast.Call, wanted: str, of: Callable[[ast.expr, str], ast.expr]
    ) -> ast.expr:
        name, mark = self.words.get(getattr(node.func, "id", ""), ("", "`"))
        if mark:
            self._refuse(node)
        if name == _FACTUAL:
            inner = node.args[0] if len(node.args) == 1 and not node.keywords else None
            if not isinstance(inner, ast.Name) or inner.id not in self.words:
                self._refuse(node)
            return self._variable(self.words[inner.id][0], "before" if self.before else "factual")
        if name in FAMILIES or name == TRAIN:
            if self.before:
                raise UnreadableError(f"a condition cannot draw, but got {name}")
            return self._draw(self._drawn(name, node))
        if name not in _FUNCTIONS:
            meant = nearest(name, [*_FUNCTIONS, *FAMILIES], ASIDE)
            raise UnreadableError(
                f"unknown function {name!r}{meant}; the functions are {', '.join(_FUNCTIONS)}"
            )
        least, most, _ = _FUNCTIONS[name]
        count = len(node.args)
        if node.keywords or count < least or (most is not None and count > most):
            number = f"at least {least}" if most is None else f"{least}"
            raise UnreadableError(f"{name} takes {number} number{'s'[: least > 1]}")
        return ast.Call(ast.Name(name), [of(each, "number") for each in node.args], [])

    def _drawn(self, family: str, node: ast.Call) -> Draw:
        parameters: list[float] = [self._parameter(family, each) for each in node.args]
        if node.keywords:
            shares = dict.fromkeys(range(len(self.target.classes)), 0.0)
            for each in node.keywords:
                name = self.words[each.arg][0] if each.arg in self.words else ""
                index = self.target.class_index(name) if self.target.classes else None
                if index is None or family != "categorical" or node.args:
                    raise UnreadableError(
                        f"expected {family} with numbers, or categorical with classes of "
                        f"{self.target.name}, but got {name!r}"
                    )
                shares[index] = self._parameter(family, each.value)
            parameters = list(shares.values())
        try:
            return Draw(family, tuple(parameters))
        except ValueError as error:
            raise UnreadableError(str(error).rstrip(".")) from None

    def _parameter(self, family: str, node: ast.expr) -> float:
        sign = 1.0
        while isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            sign, node = (-sign if isinstance(node.op, ast.USub) else sign), node.operand
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return sign * float(str(node.value))
        raise UnreadableError(
            f"{family}: expected numbers as parameters, but got {self._shown(node)!r}; shift a "
            "draw instead, such as age + normal(0, 3)"
        )

    def _shown(self, node: ast.expr) -> str:
        marked = {
            key: quoted(name, mark) if mark else name for key, (name, mark) in self.words.items()
        }
        return _unparsed(node, marked | self.texts)

    def _refuse(self, node: ast.expr) -> NoReturn:
        raise UnreadableError(f"cannot read {self._shown(node)!r}")


class _Named(ast.NodeTransformer):
    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.texts.get(node.id, node.id))

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if type(node.value) in (int, float):
            return ast.Name(shortest(node.value))
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.keyword:
        return ast.keyword(self.texts.get(node.arg or "", node.arg), self.visit(node.value))


def _unparsed(node: ast.expr, texts: Mapping[str, str]) -> str:
    """The text of a tree, without the end of a condition that keeps the value."""
    text = ast.unparse(_Named(texts).visit(copy.deepcopy(node)))
    while text.endswith(f" else {_KEEP}"):
        text = text.removesuffix(f" else {_KEEP}")
    return text


def plain_signs_outside_quotes(text: str) -> str:
    """Replace signs of titles, but not in quoted names."""
    parts = re.split(rf"({QUOTED})", text, flags=re.DOTALL)
    return "".join(part if k % 2 else plain_signs(part) for k, part in enumerate(parts))


def read_expression(
    text: str,
    target: Variable,
    variables: Mapping[str, Variable] | None,
    *,
    condition: bool = False,
    draws_train: bool = False,
    before: bool = False,
    change: tuple[str, str] = ("", ""),
) -> Expression:
    """Read an expression.

    Args:
        text: The expression, such as ``0.9*age + 3 if sex == male``.
        target: The variable that gets its value.
        variables: All variables; None to know the target only.
        condition: Whether a condition is expected rather than a value.
        draws_train: Whether ``train`` is a draw from the training data, as after ``~``.
        before: Whether names are values before the intervention, as after ``where``.
        change: A sign between the variable and the expression, as ``+`` for ``+=``, and the value
            of a condition that does not hold.

    Raises:
        UnreadableError: If it cannot be read.
    """
    reader = _Reader(target, variables, target.name, draws_train, before)
    return reader.read(text, condition, change)
