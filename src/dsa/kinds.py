"""Whether settings are of the kinds that a class's constructor asks for, by its annotations: its own checks come after.

A number as text, `no` for a switch or NaN for a rate are refused here, for a user's classes as for those of this
package.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text (quoted, if it reads as something else)",
    NoneType: "null",
}
LISTS, MAPPINGS, UNIONS = (list, tuple, Sequence), (dict, Mapping), (Union, UnionType)


def check_kinds(made: type, settings: Mapping[str, tuple[str, Any]]) -> None:
    """Refuse a setting whose kind the constructor's annotation rules out; what is not annotated may be anything.

    Args:
        made: the class.
        settings: by the name under which each is typed, its argument and value; plain data.

    Raises:
        ValueError: naming the setting, what it got and what is allowed.
    """
    hints = get_type_hints(made.__init__)  # type: ignore[misc]
    for name, (argument, value) in settings.items():
        if argument in hints and fits(value, hints[argument]) is False:
            raise ValueError(f"{name} = {shown(value)}: give {words(hints[argument])}.")


def check_arguments(made: type, given: Mapping[str, Any], slot: str, whole: bool) -> None:
    """Refuse arguments that the constructor does not take.

    Args:
        given: all arguments by name.
        whole: whether nothing will be added, so that none may be missing.

    Raises:
        ValueError: naming the setting.
    """
    signature = inspect.signature(made)
    try:
        (signature.bind if whole else signature.bind_partial)(**given)
    except TypeError as error:
        raise ValueError(f"{slot}: {made.__name__} cannot be made, {error}.") from error


def fits(value: Any, hint: Any) -> bool | None:
    """Whether plain data are of an annotation's kind; None where the annotation says nothing of plain data."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in UNIONS:
        verdicts = [fits(value, part) for part in parts if value is None or part is not NoneType]
        return True if True in verdicts else False if False in verdicts else None
    if kind is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if kind in LISTS:
        return isinstance(value, list | tuple) and all_fit(value, parts, kind is tuple and ... not in parts)
    if kind in MAPPINGS:
        return isinstance(value, dict)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind in WORDS:
        return type(value) is kind
    return True if kind in (Any, object) else False if value is None else None


def all_fit(values: Sequence[Any], parts: tuple[Any, ...], each: bool) -> bool:
    """Whether the items of a list fit, each its own annotation or all the same; any do where there is none."""
    if each and parts:
        return len(values) == len(parts) and all(fits(*pair) is not False for pair in zip(values, parts, strict=True))
    return all(fits(value, parts[0]) is not False for value in values if parts)


def words(hint: Any) -> str:
    """What an annotation allows, for people."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in UNIONS:
        return " or ".join(words(part) for part in parts if get_origin(part) or part in WORDS) or "something else"
    if kind is Literal:
        return " or ".join(str(part) for part in parts)
    if kind in LISTS:
        inner = [words(part) for part in parts if part is not ...]
        return (
            f"a list [{', '.join(inner)}{'' if kind is tuple and ... not in parts else ', ...'}]" if inner else "a list"
        )
    return "settings (key: value)" if kind in MAPPINGS else WORDS.get(kind, "something else")


def shown(value: Any) -> str:
    """A value as it is typed."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
