"""A model from a repository of the Hugging Face Hub, or from a folder of the same form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from riszoo.errors import UserError, unknown_name
from riszoo.inference.hub.fetch import fetch, parse
from riszoo.model import RISModule
from riszoo.training import runs
from riszoo.training.checkpoints import from_checkpoint

OPTIONS = ("token", "cache_dir", "force_download", "local_files_only")
"""Options of huggingface_hub that `from_pretrained` passes on."""


def from_pretrained(place: str, *, revision: str | None = None, model: str = "", **options: Any) -> RISModule:
    """The model of a folder or a repository with its weights, in evaluation mode.

    Args:
        place: a folder, `user/repository`, or an address `hf://user/repository[@revision]`
        revision: branch, tag or commit
        model: the class path that the checkpoint must be of; default: the class of any recipe
        options: those of huggingface_hub in `OPTIONS`; a folder needs none
    """
    for name in options:
        if name not in OPTIONS:
            raise unknown_name("option", name, OPTIONS, of="from_pretrained")
    if Path(place).is_dir():
        if revision is not None:
            raise UserError(f"revision={revision}: the folder {place} has no revisions; leave it out")
        return from_checkpoint(runs.existing(place), model)
    address = parse(place)
    return from_checkpoint(fetch(address._replace(revision=revision or address.revision), **options), model)
