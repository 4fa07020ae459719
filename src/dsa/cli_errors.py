"""What is typed wrong, told in one line: which setting, what it got, what is allowed. Hydra takes a page for it."""

import difflib
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dsa.config import config_dir
from dsa.guard import guarded
from dsa.kinds import shown

FULL = "HYDRA_FULL_ERROR"
APPENDED = re.compile(r"To append to your config use \+(\S+?)=(.*)")
NOT_TYPED = ("hydra", "choices", "overridden", "_target_", "_partial_", "plan", "planned")


def run(main: Callable[[], None]) -> None:
    """Run a program of Hydra's; what it refuses ends it with one line and status 2, HYDRA_FULL_ERROR=1 shows all.

    Raises:
        SystemExit: the command line is wrong.
    """
    sys.argv[1:] = settings_first(sys.argv[1:])
    logging.raiseExceptions = False  # a terminal that takes no more lines would get a page for each
    if os.environ.get(FULL) == "1":
        with guarded(sys.argv[1:]):
            main()
        return
    os.environ[FULL] = "1"  # Hydra then raises what it would print
    try:
        check_groups(sys.argv[1:])
        with guarded(sys.argv[1:]):
            main()
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: {sentence(error)}{of_swept(error, sys.argv[1:])}", file=sys.stderr)
        sys.exit(2)


def settings_first(arguments: list[str]) -> list[str]:
    """A command line with the settings that stand after an option moved before it: Hydra's parser takes them there."""
    known, rest = get_args_parser().parse_known_args(arguments)
    if any(argument.startswith("-") for argument in rest):
        return arguments  # an option that Hydra does not know, which it shall say itself
    settings = [*known.overrides, *rest]
    return [*settings, *(argument for argument in arguments if argument not in settings)] if rest else arguments


def check_groups(arguments: Sequence[str]) -> None:
    """Refuse what is no name where an option is to be named: Hydra raises a bare ValueError there.

    Raises:
        HydraException: with a sentence; also where an override cannot be read.
    """
    for override in overrides(arguments):
        group, value = override.key_or_group, override.value()
        named = override.is_sweep_override() or isinstance(value, str | list)
        if not named and ("/" in group or (config_dir() / group).is_dir()):
            raise HydraException(
                f"{group} = {shown(value)}: give the name of an option of conf/{group}, or leave it out."
            )


def overrides(arguments: Sequence[str]) -> list[Override]:
    """What a command line sets, read by Hydra's grammar."""
    given = [argument for argument in arguments if "=" in argument and not argument.startswith(("-", "~"))]
    return OverridesParser.create().parse_overrides(given)


def of_swept(error: Exception, arguments: Sequence[str]) -> str:
    """What to write for a setting that options of a swept group may have: Hydra looks for it in the group's default."""
    if (appended := APPENDED.search(str(error))) is None:
        return ""
    group = appended[1].split(".")[0]
    swept = any(one.key_or_group == group and one.is_sweep_override() for one in overrides(arguments))
    return f" Where each of these options has it, write ++{appended[1]}={appended[2]}." if swept else ""


def sentence(error: Exception) -> str:
    """One line on what Hydra refuses."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group} = {option}: no such option. Give one of {', '.join(error.options)}."
    if isinstance(error, OverrideParseException):
        why = error.message.splitlines()[1:2] or [error.message]
        return f"{error.override}: cannot be read ({why[0]}). Give key=value, without blanks around =."
    appended = APPENDED.search(str(error))
    if isinstance(error, ConfigCompositionException) and appended:
        cause = error.__cause__
        return f"{appended[1]} = {appended[2]}: no such setting{owner(cause)}. {alternatives(cause)}"
    text = " ".join(str(error).split()).removeprefix("ValueError raised while resolving interpolation: ")
    if missing := re.search(r"Missing mandatory value: (\S+)", text):
        return f"{missing[1]}: this option needs a value; give {missing[1]}=..."
    if absent := re.search(r"Interpolation key '(\S+)' not found.* full_key: (\S+)", text):
        group, key = absent[2].split(".")[0], absent[1]
        others = ", ".join(options_with(key))
        instead = f" Give another {group}=..., or {key.split('.')[0]}= one that has it: {others}." if others else ""
        return f"{absent[2]}: it is taken from {key}, which the options chosen do not have.{instead}"
    return text


def options_with(key: str) -> list[str]:
    """The options of a group that have a setting of it, by its dotted name."""
    group, _, name = key.partition(".")
    out = []
    for path in sorted((config_dir() / group).glob("*.yaml")):
        content = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(content, dict)
        if name in content.get(group, content):  # one that brings options of other groups has its own under its name
            out.append(path.stem)
    return out


def owner(error: BaseException | None) -> str:
    """Whose setting a key would be: the class of the option chosen, which Hydra has not named yet."""
    node = error.parent_node if isinstance(error, OmegaConfBaseException) else None
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    return f" of {target}" if target else ""


def alternatives(error: BaseException | None) -> str:
    """What there is where a key was not found, what is spelled alike first; nothing if OmegaConf does not know."""
    if not isinstance(error, OmegaConfBaseException) or not isinstance(error.parent_node, DictConfig):
        return ""
    there = sorted(str(key) for key in error.parent_node if key not in NOT_TYPED)
    root = error.parent_node._get_root()
    if error.parent_node is not root and error.key in root:
        return f"It stands alone: give {error.key}=... There are here: {', '.join(there) or 'none'}."
    alike = difflib.get_close_matches(str(error.key), there, n=1)
    return (f"Did you mean {alike[0]}? " if alike else "") + f"There are: {', '.join(there) or 'none'}."
