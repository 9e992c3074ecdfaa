"""From data to an experiment: a fingerprint of a table and its images, and a plan of a training."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.planning.commented import commented_yaml as commented_yaml
    from deepscm_pl.planning.fingerprint import (
        ColumnFingerprint as ColumnFingerprint,
        Fingerprint as Fingerprint,
        ImageFingerprint as ImageFingerprint,
        read_fingerprint as read_fingerprint,
    )
    from deepscm_pl.planning.forms import (
        Choice as Choice,
        Form as Form,
        choose_forms as choose_forms,
        with_chosen_forms as with_chosen_forms,
    )
    from deepscm_pl.planning.plan import Plan as Plan, make_plan as make_plan

__getattr__ = first_use(__name__)
