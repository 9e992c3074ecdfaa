"""Tables: reading with one set of rules, columns as variables, and writing."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.data.tables.attributes import (
        Attribute as Attribute,
        AttributeKind as AttributeKind,
        ColumnRules as ColumnRules,
        MissingValues as MissingValues,
        read_attribute as read_attribute,
        select_columns as select_columns,
    )
    from deepscm_pl.data.tables.table import (
        MISSING_WORDS as MISSING_WORDS,
        Table as Table,
        TableFormat as TableFormat,
        Text as Text,
        read_table as read_table,
    )
    from deepscm_pl.data.tables.writing import write_table as write_table

__getattr__ = first_use(__name__)
