"""What torch.compile does not look into: it compiles what stands before and behind, and calls this as it is."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def opaque(function: Function) -> Function:
    """A function that runs within a compiled model as it does without: its kernels are compiled already, and how many
    keys a query keeps is not known before it runs."""

    @functools.wraps(function)
    def called(*given: Any, **options: Any) -> Any:
        if torch.compiler.is_compiling():  # else nothing is there to be kept out, and dynamo takes long to import
            return torch.compiler.disable(function)(*given, **options)
        return function(*given, **options)

    return cast(Function, called)
