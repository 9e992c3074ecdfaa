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
        Conditional as Conditional,
        Increase as Increase,
        Multiply as Multiply,
        OfFactual as OfFactual,
        Where as Where,
        as_change as as_change,
        is_constant as is_constant,
        is_set_anew as is_set_anew,
        read_variables as read_variables,
    )
    from deepscm_pl.interventions.draws import (
        Draw as Draw,
        check_support as check_support,
        draw_values as draw_values,
    )
    from deepscm_pl.interventions.expressions import (
        Expression as Expression,
        quote_class as quote_class,
        quote_variable as quote_variable,
    )
    from deepscm_pl.interventions.resolving import (
        Before as Before,
        Resolved as Resolved,
        changed_graph as changed_graph,
        resolve as resolve,
    )
    from deepscm_pl.interventions.text import (
        check_do as check_do,
        format_do as format_do,
        parse_do as parse_do,
    )

__getattr__ = first_use(__name__)
