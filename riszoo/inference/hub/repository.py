"""A trained model as a repository's folder: weights, config.json, model card, results; and its way to the Hub."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riszoo import __version__
from riszoo.errors import UserError, reason
from riszoo.files import file_hash, new_folder, write_atomically
from riszoo.inference.hub.card import model_card, results_of, results_yaml
from riszoo.inference.hub.fetch import CARD, CONFIG, REQUIRED, RESULTS, WEIGHTS, Address, fetch
from riszoo.training import runs
from riszoo.training.checkpoints import from_checkpoint, model_section, read_checkpoint, recorded_files, run_names
from riszoo.training.exchange import with_origin, write_weights

Hashes = dict[str, str]


@dataclass(frozen=True)
class CardOptions:
    """What the card of a model says besides.

    license  of the weights, in the Hub's short form
    address  of the repository
    dataset  the data set's own repository on the Hub, for results in the Hub's form; None: there are none
    """

    license: str
    address: str = "hf://user/repository"
    dataset: str | None = None


def tensor_hashes(state: dict[str, Tensor]) -> Hashes:
    """SHA-256 of the type, shape and bytes of each tensor."""
    return {name: _hash(value) for name, value in sorted(state.items())}


def _hash(value: Tensor) -> str:
    content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(f"{value.dtype} {tuple(value.shape)}".encode() + content).hexdigest()


def write_repository(checkpoint: Path, out: Path, card: CardOptions, model: str = "") -> None:
    """Write the folder of a checkpoint's repository; complete and checked, or not at all.

    The checkpoint's class must be that of `model`, as in `from_checkpoint`.
    """
    content = with_origin(read_checkpoint(checkpoint), checkpoint)
    if recorded := recorded_files(content):
        files = ", ".join(entry["file"] for entry in recorded.values())
        raise UserError(f"{checkpoint} leaves out the weights of {files}: push a checkpoint that contains all weights")
    with new_folder(out) as folder:
        write_weights(content, folder / WEIGHTS)
        config = _config(content)
        write_atomically(folder / CONFIG, json.dumps(config, indent=1, ensure_ascii=False) + "\n")
        results = results_of(runs.folder_of(checkpoint), file_hash(checkpoint))
        write_atomically(folder / CARD, model_card(config, results, _about(folder / WEIGHTS, content, card)))
        if results is not None and card.dataset is not None:
            write_atomically(folder / RESULTS, results_yaml(results, card.dataset))
        check_repository(folder, model)


def _about(weights: Path, content: dict[str, Any], card: CardOptions) -> dict[str, str]:
    """What the model card says of the file of weights and its repository."""
    return {
        "license": card.license,
        "address": card.address,
        "parameters": f"{sum(value.numel() for value in content['state_dict'].values()):,}",
        "bytes": f"{weights.stat().st_size:,}",
        "sha256": file_hash(weights),
    }


def _config(content: dict[str, Any]) -> dict[str, Any]:
    """What config.json says: the model's class and options, its training, and the hash of every tensor."""
    return {
        **model_section(content),
        "run": run_names(content),
        "riszoo": __version__,
        "tensors": tensor_hashes(content["state_dict"]),
    }


def check_repository(folder: Path, model: str = "") -> None:
    """Raise UserError where a file is missing, or where the loaded model differs from the hashes in config.json.

    `model` is the recipe or class path that the user has named, as in `from_checkpoint`.
    """
    for file in REQUIRED:
        if not (folder / file).is_file():
            raise UserError(f"{folder} has no {file}: it is not a repository that `riszoo hub push` has written")
    try:
        expected: Hashes = dict(json.loads((folder / CONFIG).read_bytes())["tensors"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{folder / CONFIG} has no hashes of tensors ({error!s:.80}): fetch the repository again"
        ) from None
    stored = read_checkpoint(folder / WEIGHTS)["state_dict"]
    loaded = from_checkpoint(folder / WEIGHTS, model).state_dict()
    found = tensor_hashes({name: loaded[name].to(value.dtype) for name, value in stored.items()})
    wrong = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
    if wrong:
        raise UserError(
            f"{folder}: {len(wrong)} tensors of the loaded model differ from {CONFIG}, such as {wrong[0]:.80}: fetch "
            "the repository again"
        )


def pull(address: Address, out: Path, model: str = "") -> None:
    """Copy a repository's files to a new folder, and check them, as a repository of `model` where one is named."""
    with new_folder(out) as folder:
        for file in REQUIRED:
            shutil.copyfile(fetch(address, file), folder / file)
        check_repository(folder, model)


def upload(folder: Path, address: Address, checkpoint: Path, *, private: bool) -> str:
    """Send the folder of a checkpoint's repository to the Hub in one commit; returns the commit's address.

    A missing repository or branch is created.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    files = [path for path in folder.rglob("*") if path.is_file()]
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        api.create_repo(address.repository, private=private, exist_ok=True)
        if address.revision is not None:
            api.create_branch(address.repository, branch=address.revision, exist_ok=True)
        commit = api.create_commit(
            address.repository,
            [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in sorted(files)],
            commit_message=f"Upload a model of riszoo {__version__}",
            revision=address.revision,
        )
    except Exception as error:  # the client raises errors of several libraries
        raise UserError(
            f"{checkpoint} cannot be sent to {address} ({type(error).__name__}: {reason(error)}): log in with "
            "`hf auth login`, and check the address, HF_ENDPOINT and HF_HUB_OFFLINE"
        ) from error
    return str(commit.commit_url)
