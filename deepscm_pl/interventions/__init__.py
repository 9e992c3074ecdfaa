"""Interventions: their kinds, and one grammar of texts for command line, YAML, Python and tables.

===========================================  ====================================================
text                                         meaning
===========================================  ====================================================
``thickness=3``, ``sex=male``                set a number, or a class by its name or index
``thickness+=1``, ``-=``, ``*=``             shift or scale the value under the other changes
``b=factual+20``, ``b=factual``              change, or keep, the observed value
``age=0.9*age+3``, ``age=min(age, 60)``      a function, also of other variables
``thickness~normal(3, 0.5)``, ``age~train``  draw from a distribution, or from the training data
``volume=0.9*volume if sex == male``         a change in some rows; ``else …`` for the others
``age=50 where age > 60 and sex == female``  a question about a group; other rows stay as they are
===========================================  ====================================================

The page ``docs/interventions.md`` has all forms. In Python, an intervention is a number, a tensor,
a function of the value, :class:`OfFactual`, a ``torch.distributions`` object or :class:`Draw`,
:class:`Conditional`, or :class:`Where` around any of these.
"""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.interventions.changes import (
        Conditional,
        Increase,
        Multiply,
        OfFactual,
        Where,
        as_change,
        is_constant,
        is_set_anew,
        read_variables,
    )
    from deepscm_pl.interventions.draws import Draw, check_support, draw_values
    from deepscm_pl.interventions.expressions import Expression, quote_class, quote_variable
    from deepscm_pl.interventions.resolving import Before, Resolved, changed_graph, resolve
    from deepscm_pl.interventions.text import check_do, format_do, parse_do

__all__ = [
    "Before",
    "Conditional",
    "Draw",
    "Expression",
    "Increase",
    "Multiply",
    "OfFactual",
    "Resolved",
    "Where",
    "as_change",
    "changed_graph",
    "check_do",
    "check_support",
    "draw_values",
    "format_do",
    "is_constant",
    "is_set_anew",
    "parse_do",
    "quote_class",
    "quote_variable",
    "read_variables",
    "resolve",
]

__getattr__ = first_use(__name__)
