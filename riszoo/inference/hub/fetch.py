"""Addresses of the Hugging Face Hub, `hf://user/repository[@revision]`, and the files behind them.

A file is read from the folder that RISZOO_HUB names, or from the cache of the Hub's client. It is downloaded only where
RISZOO_DOWNLOAD is 1; HF_ENDPOINT names another server, HF_HUB_OFFLINE forbids all connections. Importing this module
imports nothing heavy.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from riszoo.errors import UserError, reason

SCHEME = "hf://"
ADDRESS = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?")
WEIGHTS, CONFIG, CARD, RESULTS = "model.safetensors", "config.json", "README.md", ".eval_results/riszoo.yaml"
REQUIRED = (WEIGHTS, CONFIG, CARD)
"""The files of every repository; the results exist where the data set has a repository."""


class Address(NamedTuple):
    """A repository, and a branch, tag or commit of it; None: its main branch."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}" + (f"@{self.revision}" if self.revision else "")


def is_address(text: str) -> bool:
    return text.startswith(SCHEME)


def parse(text: str) -> Address:
    """The address in a text, with or without `hf://`."""
    match = ADDRESS.fullmatch(text.removeprefix(SCHEME))
    if match is None:
        raise UserError(f"'{text:.100}' is not the address of a repository: give hf://user/repository[@revision]")
    return Address(match[1], match[2])


def fetch(address: Address, file: str = WEIGHTS, **options: Any) -> Path:
    """The path of a repository's file on this machine.

    `options` are those of huggingface_hub: token, cache_dir, force_download, local_files_only.
    """
    from huggingface_hub import hf_hub_download

    from riszoo.encoders.weights import hub_copy, may_download

    copy = hub_copy(address.repository) if address.revision is None else None
    if copy is not None:
        return _existing(copy / file)
    local = options.pop("local_files_only", False) or not may_download()
    try:
        found = hf_hub_download(
            address.repository,
            file,
            revision=address.revision,
            endpoint=os.environ.get("HF_ENDPOINT"),
            local_files_only=local,
            **options,
        )
    except Exception as error:  # the client raises errors of several libraries
        raise _not_found(address, file, local, error) from error
    return Path(found)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"{path} is missing: copy all files of the repository to there, or unset RISZOO_HUB")
    return path


def _not_found(address: Address, file: str, local: bool, error: Exception) -> UserError:
    if local:
        return UserError(
            f"{file} of {address} is not in the local cache: set RISZOO_DOWNLOAD=1 to allow its download, or copy the "
            f"repository to a folder {address.repository} and set RISZOO_HUB to the folder that contains it"
        )
    return UserError(
        f"{file} of {address} cannot be downloaded ({type(error).__name__}: {reason(error)}): check the address, "
        "HF_ENDPOINT and HF_HUB_OFFLINE"
    )
