"""What a file of weights is, for `riszoo info FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from riszoo.encoders.clip.archive import is_archive, read_archive
from riszoo.encoders.weights import some, unwrapped
from riszoo.errors import UserError
from riszoo.training import runs
from riszoo.training.checkpoint_checks import check_content
from riszoo.training.checkpoints import load_content, recorded_files
from riszoo.training.exchange import published


def described(path: Path) -> list[str]:
    """What a file is, in lines of text."""
    content: Any = read_archive(path) if is_archive(path) else load_content(path)
    if not isinstance(content, dict) or "riszoo" not in content:
        state = unwrapped(content)
        if not state:
            raise UserError(f"{path} contains no named tensors: give a checkpoint or the file of a state dict")
        names = list(dict.fromkeys(name.split(".", 1)[0] for name in state))
        return [f"{path}: weights without a model, {_size(state)}", f"  names begin with {some(names)}"]
    content = check_content(content, path)
    about, options, state = published(content), content["hyper_parameters"], content["state_dict"]
    kind = f"a published '{about['format']}' checkpoint" if about else "a checkpoint of riszoo"
    lines = [f"{path}: {kind} of {content['riszoo']['class_path']}, {_size(state)}"]
    encoders = {part: options[part] for part in ("vision", "text") if isinstance(options.get(part), dict)}
    lines += [f"  {part} {encoder.get('name')}" for part, encoder in encoders.items()]
    lines += _training(content["riszoo"], path)
    if about:
        lines.append(f"  {len(about['ignored'])} tensors without weights ignored" + _examples(about["ignored"]))
    for name, file in recorded_files(content).items():
        lines.append(f"  without the {name} weights of {file['file']}, sha256 {file['sha256'][:16]}...")
    return lines


def _training(about: dict[str, Any], path: Path) -> list[str]:
    """How the weights were trained, as the file or its run folder says."""
    card = about.get("card") or runs.card(runs.folder_of(path)) or about.get("run")
    if not isinstance(card, dict):
        return []
    facts = [f"{name} {card[name]}" for name in ("data", "scale", "seed", "commit") if name in card]
    command = f" with '{card['command']}'" if "command" in card else ""
    return [f"  trained{command}: {', '.join(facts)}"]


def _size(state: dict[str, Tensor]) -> str:
    return f"{len(state)} tensors with {sum(value.numel() for value in state.values()):,} values"


def _examples(names: list[str]) -> str:
    return f", such as {names[0]}" if names else ""
