"""The argument parser of the verbs that LightningCLI does not run."""

from __future__ import annotations

import argparse
import difflib
from typing import Any, NoReturn

from riszoo.errors import UserError


class CommandParser(argparse.ArgumentParser):
    """argparse that raises UserError and accepts no abbreviated options."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def add_root(self) -> None:
        """The option that names the folder of all data sets."""
        self.add_argument("--root", help="the folder of data sets (default: RISZOO_DATA, then ./data)")

    def options(self) -> list[str]:
        """The long options, in the order of the help."""
        return [option for action in self._actions for option in action.option_strings if option.startswith("--")]

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized"):
            unknown = next((word for word in message.split() if word.startswith("--")), "")
            nearest = difflib.get_close_matches(unknown, self._option_string_actions, 1, 0.6)
            message += f"; did you mean {nearest[0]}?" if nearest else ""
        raise UserError(f"{message} (see '{self.prog} --help')")
