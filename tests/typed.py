"""What holds annotations to their word while tests run: each function at its first call of a kind in a test.

A run calls the same functions with the same shapes hundreds of times, and checking each call takes as long as the call.
"""

import functools
import itertools
from types import FunctionType
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype
from torch import Tensor

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # as type checkers read it, an int is a float too
exactly = jaxtyping.jaxtyped


STAND_INS = "dsa.training."  # where a test may hand anything but tensors something simpler than what is annotated


def of_tensors(target: Any) -> Any:
    """`checked`, but of tensors alone."""
    if isinstance(target, FunctionType):
        target.__annotations__ = {name: target.__annotations__[name] for name in tensors_of(target)}
    return checked(target)


def tensors_of(target: FunctionType) -> list[str]:
    """Arguments whose annotations speak of the shapes of tensors."""
    return [name for name, kind in target.__annotations__.items() if has_tensors(kind)]


def has_tensors(kind: Any) -> bool:
    """Whether an annotation speaks of the shapes of tensors."""
    if isinstance(kind, type) and issubclass(kind, jaxtyping.AbstractArray):
        return True
    return any(map(has_tensors, get_args(kind)))


numbers = itertools.count()  # of functions: a function itself may hold tensors, and hashing its code takes long
checked_calls: set[Any] = set()  # of what kinds there were some; emptied before each test


def first_of_a_kind(target: Any = None, *, typechecker: Any = None) -> Any:
    """`jaxtyping.jaxtyped`, for the first call of a function with tensors of the same shapes and formats."""
    if target is None:
        return functools.partial(first_of_a_kind, typechecker=typechecker)
    if target.__module__.startswith(STAND_INS) and isinstance(target, FunctionType) and not tensors_of(target):
        return target  # what pickles by its name goes on doing so
    if isinstance(target, FunctionType) and "<locals>" in target.__qualname__:
        return target  # it is made anew at each call of what it stands in, and would be compiled anew
    if not isinstance(target, FunctionType):
        return exactly(target, typechecker=typechecker)
    strict = functools.cache(lambda: exactly(target, typechecker=typechecker))  # most are never called in a process
    number = next(numbers)

    @functools.wraps(target)
    def called(*args: Any, **named: Any) -> Any:
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:  # what is made now would never check
            return target(*args, **named)
        given = [(one.shape, one.dtype) if isinstance(one, Tensor) else type(one) for one in (*args, *named.values())]
        kind = (number, *given, *named)
        if kind in checked_calls:
            return target(*args, **named)
        checked_calls.add(kind)
        return strict()(*args, **named)

    return called
