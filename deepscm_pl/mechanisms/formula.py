"""A scalar mechanism that is written as a formula of its parents and of noise."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from pyro.distributions import Normal, TransformedDistribution
from torch import Tensor, nn
from torch.distributions import AffineTransform, ExpTransform, Transform

from deepscm_pl.checks import real_number, shown
from deepscm_pl.interventions.expressions import Expression, UnreadableError, read_expression
from deepscm_pl.mechanisms.base import Context
from deepscm_pl.mechanisms.flow import Flow
from deepscm_pl.variables import Domain, Seen, Variable, Variables

__all__ = ["Formula"]

_NOISE = "u"
_FORMS = "write it once, in sums, in products with what does not contain it, or in exp(...)"


class Formula(Flow):
    """A mechanism x := f(pa, u) that is given by a formula, such as ``0.5*age + 2*sex + u``.

    u is normal noise with the standard deviation σ. It occurs once, in sums, differences, products
    with terms without u, quotients by them, and exponential functions, so that f is invertible in u
    exactly. Classes count from 0: ``sex`` is 0 or 1, and ``sex == 1`` can be a condition, as in
    ``(3 if sex == 1 else 0) + u``. The grammar is that of interventions
    (:mod:`deepscm_pl.interventions`); nothing in the text is executed.

    Known numbers stay as they are, and named coefficients are learned. The coupling is monotone: a
    value keeps its quantile given the parents. ``exp`` gives values above 0.

    Args:
        formula: The text.
        scale: σ. None to learn it, starting from the deviation of the noise in the data.
        coefficients: Names of learned coefficients in the formula with their values at the start.

    Raises:
        ValueError: If the text is no such formula or has unknown names; in :meth:`fit`, if the
            factor of u is not of one sign over the training split.

    Example:
        >>> parents = {"age": Domain()}
        >>> f = Formula(Context(parents), formula="0.5*age + 3 + u", scale=2.0)
        >>> f({"u": torch.tensor([[1.0]])}, {"age": torch.tensor([[40.0]])})
        tensor([[25.]])
    """

    log_scale: Tensor

    def __init__(
        self,
        context: Context,
        formula: str,
        scale: float | None = None,
        coefficients: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(context)
        start = 1.0 if scale is None else real_number("scale", scale, above=0)
        self._learns_scale = scale is None
        self.log_scale = nn.Parameter(torch.tensor([math.log(start)]), requires_grad=scale is None)
        self.coefficients = nn.ParameterDict()
        for name, value in (coefficients or {}).items():
            self._check_name(name)
            self.coefficients[name] = torch.tensor([real_number(f"coefficients.{name}", value)])
        self.formula = self._read(formula)
        self._steps = list(self._path(self.formula.tree))
        self._domain = self._domain_of_path()

    def _check_name(self, name: str) -> None:
        if name in self.context.parents or name == _NOISE or not name.isidentifier():
            raise ValueError(
                f"coefficients: expected names that are not {_NOISE} or those of parents, but got "
                f"{shown(name)}; rename it."
            )

    def _read(self, text: str) -> Expression:
        if not isinstance(text, str):
            raise ValueError(f"formula: expected a text, but got {shown(text)}.")
        if _NOISE in self.context.parents:
            raise ValueError(f"formula: expected {_NOISE} to be the noise; rename the parent.")
        names = (_NOISE, *self.context.parents, *self.coefficients)
        variables = {name: Variable(name) for name in names}
        try:
            found = read_expression(text, variables[_NOISE], variables)
        except UnreadableError as error:
            raise ValueError(f"formula: {error}.") from None
        if found.draws or found.factual:
            raise ValueError(
                f"formula: expected a function of the parents and {_NOISE}, but got {text!r}; "
                f"{_NOISE} is the only noise."
            )
        unused = [name for name in self.coefficients if name not in found.reads]
        if unused:
            raise ValueError(f"coefficients: {unused[0]} is not in the formula; remove it.")
        return found

    def _has_noise(self, node: ast.AST) -> bool:
        references = self.formula.references
        names = (each.id for each in ast.walk(node) if isinstance(each, ast.Name))
        return any(references[name].kind == "own" for name in names if name in references)

    def _path(self, node: ast.expr) -> Iterator[tuple[str, ast.expr | None]]:
        """The operations from x down to u, each with its other operand."""
        while not (isinstance(node, ast.Name) and self._has_noise(node)):
            step, node = self._step(node)
            yield from step

    def _step(self, node: ast.expr) -> tuple[list[tuple[str, ast.expr | None]], ast.expr]:
        match node:
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return [("negate", None)], inner
            case ast.UnaryOp(op=ast.UAdd(), operand=inner):
                return [], inner
            case ast.Call(func=ast.Name(id="exp"), args=[inner]):
                return [("exp", None)], inner
            case ast.BinOp(left=left, op=operator, right=right):
                inside = self._has_noise(left), self._has_noise(right)
                known = _KNOWN.get(type(operator))
                if known is not None and inside == (True, False):
                    return [(known, right)], left
                if isinstance(operator, ast.Add | ast.Mult) and inside == (False, True):
                    return [(_KNOWN[type(operator)], left)], right
                if isinstance(operator, ast.Sub) and inside == (False, True):
                    return [("add", left), ("negate", None)], right
        raise ValueError(
            f"formula: expected a function that can be inverted in {_NOISE}, but got "
            f"{self.formula.text!r}; {_FORMS}."
        )

    def _domain_of_path(self) -> Domain:
        """(0, ∞) if x is a positive multiple of an exponential function, else the real line."""
        for operation, other in self._steps:
            if operation == "exp":
                return Domain(lower=0.0, open=True)
            is_number = isinstance(other, ast.Constant)
            if operation not in ("multiply", "divide") or not is_number:
                break
            if float(str(other.value)) < 0:  # type: ignore[union-attr]
                break
        if any(operation == "exp" for operation, _ in self._steps):
            raise ValueError(
                f"formula: expected values with known bounds, but got {self.formula.text!r}; put "
                "everything else into exp(...), such as exp(a*age + u), but positive factors."
            )
        return Domain(open=True)

    @property
    def domain(self) -> Domain:
        """The real line, or positive numbers of an exponential function."""
        return self._domain

    def _value_of(self, node: ast.expr, parents: Variables) -> Tensor:
        known = {**parents, **dict(self.coefficients.items())}
        like = self.log_scale
        seen = Seen({name: known[name] for name in self.formula.reads})
        found = replace(self.formula, tree=node).apply(like, seen)
        return found.to(torch.promote_types(like.dtype, torch.float32))

    def _layers(self, parents: Variables) -> list[Transform]:
        zero = torch.zeros_like(self.log_scale)
        layers: list[Transform] = [AffineTransform(zero, self.log_scale.exp())]
        for operation, other in reversed(self._steps):
            if other is None:
                made = ExpTransform() if operation == "exp" else AffineTransform(zero, zero - 1)
                layers.append(made)
                continue
            value = self._value_of(other, parents)
            if operation in ("add", "subtract"):
                layers.append(AffineTransform(value if operation == "add" else -value, zero + 1))
            else:
                layers.append(
                    AffineTransform(zero, value if operation == "multiply" else 1 / value)
                )
        return layers

    def transforms(self, context: Tensor) -> list[Transform]:
        """Raise NotImplementedError: the formula reads parents by name, not their features."""
        raise NotImplementedError("a formula reads its parents by name; see distribution().")

    def distribution(self, parents: Variables) -> TransformedDistribution:
        """Return p(x | pa)."""
        base = Normal(torch.zeros_like(self.log_scale), 1.0, validate_args=False)
        return TransformedDistribution(base.to_event(1), self._layers(parents), validate_args=False)

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Check the factor of u over the training split, and start σ from the data.

        Raises:
            ValueError: If the factor is 0, or positive in some rows and negative in others.
        """
        self.context.fit(parents)
        for operation, other in self._steps:
            if other is not None and operation in ("multiply", "divide"):
                factor = self._value_of(other, parents).detach()
                if not bool((factor > 0).all() or (factor < 0).all()):
                    raise ValueError(
                        f"formula: expected factors of {_NOISE} of one sign, but in "
                        f"{self.formula.text!r} one is {factor.min().item():g} to "
                        f"{factor.max().item():g} over the training data; use exp(...)."
                    )
        if self._learns_scale:
            with torch.no_grad():
                noise = self.abduct(value, parents)["u"].double()
                deviation = noise.std(correction=0) * self.log_scale.double().exp()
                self.log_scale.copy_(deviation.clamp(min=1e-6).log().to(self.log_scale))


_KNOWN = {ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide"}
