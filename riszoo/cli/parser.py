"""The argument parser of the verbs that LightningCLI does not run."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from riszoo.errors import UserError


class CommandParser(argparse.ArgumentParser):
    """argparse that raises UserError, and accepts neither abbreviated options nor empty values.

    Args:
        hint: what to do with words that belong to no option
        may_be_empty: options for which an empty value has a meaning
    """

    def __init__(self, hint: str = "", may_be_empty: Collection[str] = (), **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)
        self.hint, self.may_be_empty = hint, may_be_empty

    def add_root(self) -> None:
        """The option that names the folder of all data sets."""
        self.add_argument("--root", help="the folder of data sets (default: RISZOO_DATA, then ./data)")

    def options(self) -> list[str]:
        """The long options, in the order of the help."""
        return [option for action in self._actions for option in action.option_strings if option.startswith("--")]

    def parse_args(  # type: ignore[override]  # argparse has overloads for namespaces of other types
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        words = sys.argv[1:] if args is None else args
        parsed: argparse.Namespace = super().parse_args(words, namespace)
        self._check_values(words)
        return parsed

    def _check_values(self, words: Sequence[str]) -> None:
        """Raise UserError for the first empty word, such as an empty variable of the shell leaves."""
        option = ""
        for word in words:
            name, equals, value = word.partition("=")
            option = name if name in self._option_string_actions else option
            is_empty = not word or (name == option and equals and not value)
            if is_empty and option not in self.may_be_empty:
                self.error(f"{option or 'an argument'} is empty: give a value" + ", or leave it out" * bool(option))

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized"):
            unknown = next((word for word in message.split() if word.startswith("--")), "")
            nearest = difflib.get_close_matches(unknown, self._option_string_actions, 1, 0.6)
            advice = f"did you mean {nearest[0]}?" if nearest else "" if unknown else self.hint
            message += f"; {advice}" if advice else ""
        raise UserError(f"{message} (see '{self.prog} --help')")
