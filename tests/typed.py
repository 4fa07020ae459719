"""What holds annotations to their word while tests run."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # as type checkers read it, an int is a float too
