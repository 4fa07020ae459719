"""One option of a config group, typed."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dsa import targets
from dsa.artifacts.digest import digest


@dataclass(frozen=True)
class Part:
    """One option of a config group.

    Args:
        slot: the group.
        option: its name, with `~` behind it if a value inside was changed; of a text or a model of the user's own
            that one's.
        node: the class it names (`_target_`) and that class's arguments, as plain data.
        admitted: packages of the user's own whose classes it may name.
    """

    slot: str
    option: str
    node: dict[str, Any]
    admitted: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        return str(self.node.get("_target_"))

    @property
    def label(self) -> str:
        """Its name, and where values were changed the beginning of a hash of them all: it tells two such apart."""
        return self.option + (digest(self.node, 4) if self.option.endswith("~") else "")

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """The class that it names, and those inside its settings."""
        return tuple(str(target) for _, target in targets.targets(self.node, self.slot))

    @cached_property
    def cls(self) -> Any:
        """The class that it names.

        Raises:
            TargetRefused: the slot may not name it.
        """
        return targets.slot_class(self.node, self.slot, self.admitted)

    def check(self) -> None:
        """Refuse settings that its class cannot take, without making it.

        Raises:
            ValueError: see `targets.maker`.
        """
        targets.maker(self.node, self.slot, self.admitted)

    def make(self, **arguments: Any) -> Any:
        """The object that it describes; an optimiser still wants its parameters.

        Args:
            arguments: what the class takes besides its settings.

        Raises:
            TargetRefused: the slot, or one inside, may not name what it names.
        """
        return targets.maker(self.node, self.slot, self.admitted)(**arguments)


def option_of(node: Any, group: str) -> Any:
    """What an option holds."""
    if not isinstance(node, Mapping):
        raise ValueError(f"{group} = {node}: give the name of an option of conf/{group}.")
    return node
