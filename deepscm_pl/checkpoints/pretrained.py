"""Mechanisms of a trained model, frozen in another one beside mechanisms that are learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from deepscm_pl.checkpoints.loading import Checkpoint
from deepscm_pl.mechanisms import Context, Mechanism

__all__ = ["Pretrained"]


class Pretrained(Mechanism):
    """A trained mechanism, frozen: its weights and its statistics do not change.

    Calling the class makes the mechanism itself, of the class that it has in the checkpoint. A
    model that contains it is saved with its weights and its description, so that no other file is
    needed to load it; ``source`` in the settings names the checkpoint that it came from.

    Args:
        context: The context of the parents: those of the variable in the checkpoint.
        checkpoint: A checkpoint or an exported model that contains the mechanism. A file that is
            loaded must not name one.
        variable: The name of the variable in the checkpoint.
        mechanism: In place of ``checkpoint``, the factory of the mechanism, in descriptions of
            saved models.
        source: The origin of the mechanism in words, set when it is described.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If it does not contain the variable, or the variable has other parents there.
    """

    never_restored = ("checkpoint",)
    """Arguments that no saved model may contain, because loading it would read another file."""

    def __new__(  # type: ignore[misc]
        cls,
        context: Context,
        checkpoint: str | None = None,
        variable: str = "",
        mechanism: Callable[[Context], Mechanism] | None = None,
        source: str = "",
    ) -> Mechanism:
        """Make the frozen mechanism."""
        if (checkpoint is None) == (mechanism is None):
            raise ValueError(
                "checkpoint: expected the checkpoint of a trained model; give checkpoint: FILE."
            )
        if checkpoint is not None:
            made = _trained(context, checkpoint, variable)
        elif mechanism is not None:
            made = mechanism(context)
        made.is_frozen = True
        return made.requires_grad_(False)

    def __init__(
        self,
        context: Context,
        checkpoint: str | None = None,
        variable: str = "",
        mechanism: Callable[[Context], Mechanism] | None = None,
        source: str = "",
    ) -> None:
        raise NotImplementedError  # __new__ makes another class

    @classmethod
    def self_contained(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments for a saved model, with the mechanism in place of the checkpoint.

        Raises:
            FileNotFoundError: If the checkpoint does not exist.
            ValueError: If it does not contain the variable.
        """
        path = arguments.get("checkpoint")
        if path is None:
            return dict(arguments)
        variable = arguments.get("variable", "")
        description = _description(Checkpoint.read(path), variable)
        return {"variable": variable, "mechanism": description, "source": str(path)}


def _description(opened: Checkpoint, variable: str) -> Mapping[str, Any]:
    mechanisms = opened.content["hyper_parameters"].get("mechanisms")
    known = mechanisms if isinstance(mechanisms, Mapping) else {}
    if variable not in known:
        raise ValueError(
            f"variable: expected one of {', '.join(known) or 'none'}, the variables of "
            f"{opened.path}, but got {variable!r}."
        )
    found: Mapping[str, Any] = known[variable]
    return found


def _trained(context: Context, path: str, variable: str) -> Mechanism:
    opened = Checkpoint.read(path)
    _description(opened, variable)
    model = opened.trained_model().scm
    found = model[variable]
    theirs, ours = (
        {name: (domain.shape, domain.categories) for name, domain in each.domains.items()}
        for each in (found.context, context)
    )
    if [*theirs.items()] != [*ours.items()]:
        differing = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
        raise ValueError(
            f"variable: expected the parents {', '.join(theirs) or 'none'} of {variable!r} in "
            f"{path}, but got {', '.join(ours) or 'none'} ({', '.join(differing) or 'the order'} "
            "differs); give it the same parents in the graph."
        )
    return found
