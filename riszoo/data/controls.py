"""What an evaluation changes, to find out what a model's result depends on.

shuffled    each image has another image's sentence
blank       empty sentences
constant    the sentences stay; the keys and values of the decoder are zero for all of them (`RISModule.context`)
exchanged   the sentences stay; the decoder has the keys and values of the next sentence about the same image
"""

from __future__ import annotations

from typing import Literal, get_args

from riszoo.errors import UserError

Control = Literal["none", "shuffled", "blank", "constant", "exchanged"]
CONTROLS: tuple[Control, ...] = get_args(Control)
OF_CONTEXT: tuple[Control, ...] = ("constant", "exchanged")
"""Those that change the keys and values of the decoder, and not the sentence."""


def parse_controls(text: str) -> list[Control]:
    """`none,shuffled` -> the controls, each known and once."""
    controls: list[Control] = []
    for word in text.split(","):
        known = next((control for control in CONTROLS if control == word.strip()), None)
        if known is None:
            raise UserError(f"unknown control '{word.strip()}': choose among {', '.join(CONTROLS)}")
        controls.append(known)
    return list(dict.fromkeys(controls))
