"""Weights from a file or from the local cache, checked against the encoder they go into.

Nothing is downloaded unless the environment variable RISZOO_DOWNLOAD is 1.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from riszoo.encoders.darknet import is_darknet_file, load_darknet
from riszoo.errors import UserError

log = logging.getLogger(__name__)

State = dict[str, Tensor]
DOWNLOAD = "RISZOO_DOWNLOAD"
OPTION = "--model.vision.weights PATH"
WRAPPERS = ("model", "state_dict")
PREFIXES = ("module.", "model.", "backbone.")
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def may_download() -> bool:
    return os.environ.get(DOWNLOAD) == "1"


@dataclass
class Loaded:
    """What a file left open: tensors of the model that it lacks, and names that the model has no place for."""

    path: Path
    tensors: State  # the model's, by name
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def check(self, encoder: nn.Module) -> None:
        """All that `encoder` kept of the model must have come from the file; only other parts (a head) may differ."""
        held = {id(tensor) for tensor in (*encoder.parameters(), *encoder.buffers())}
        kept = {name for name, tensor in self.tensors.items() if id(tensor) in held}
        lacking = [name for name in self.missing if name in kept]
        if lacking:
            raise UserError(
                f"{self.path} lacks {_some(lacking)} of this encoder; give the weights of this architecture"
            )
        parts = {_part(name) for name in kept}
        surplus = [name for name in self.unexpected if _part(name) in parts]
        if surplus:
            raise UserError(
                f"{self.path} holds {_some(surplus)}, unknown to this encoder; is it a larger architecture's?"
            )
        if self.unexpected:
            log.info("%s: left aside %s", self.path, _some(self.unexpected))


def load_weights(model: nn.Module, weights: str, name: str) -> Loaded:
    """Fill a whole timm model from `pretrained` or a path; `none` is the caller's."""
    path = timm_file(name) if weights == "pretrained" else existing(weights)
    if is_darknet_file(path):
        load_darknet(model, path)
        return Loaded(path, model.state_dict(keep_vars=True))
    return fill(model, adapted(read_state(path), model, path), path)


def existing(weights: str) -> Path:
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(f"no weights file at {path}; {OPTION} takes `none`, `pretrained` or the path of a file")
    return path


def read_state(path: Path) -> State:
    """The tensors of a .safetensors, .pth, .pt or .bin file, out of whatever they were wrapped in."""
    if path.suffix not in (".safetensors", ".pth", ".pt", ".bin"):
        raise UserError(f"{path} is of no known format; {OPTION} takes .safetensors, .pth, .pt or Darknet's .weights")
    try:
        content = _read(path)
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise UserError(
            f"{path} cannot be read as {path.suffix} ({type(error).__name__}); download it again"
        ) from error
    state = unwrapped(content)
    if not state:
        raise UserError(f"{path} holds no tensors by name; {OPTION} takes the file of a state dict")
    return state


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def unwrapped(content: Any) -> State:
    """A plain state dict: out of `model` or `state_dict`, without the prefixes that training wrappers put on."""
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    state = {name: value for name, value in _items(content) if isinstance(value, Tensor)}
    for prefix in PREFIXES:
        inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        state = inside or state
    return state


def _items(content: Any) -> Iterable[tuple[str, Any]]:
    return content.items() if isinstance(content, dict) else ()


def adapted(state: State, model: nn.Module, path: Path) -> State:
    """As timm's own loader of this architecture sees it: official names, and tables resized to the model's."""
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if adapt is None:
        return state
    try:
        return dict(adapt(state, model))
    except (AttributeError, KeyError, IndexError, RuntimeError) as error:
        raise UserError(f"{path} does not fit {type(model).__name__} as built here: {first_line(error)}") from error


def fill(model: nn.Module, state: State, path: Path) -> Loaded:
    """Copy what fits by name; a tensor of another shape, or nothing at all in common, is an error."""
    own: State = model.state_dict(keep_vars=True)
    common = own.keys() & state.keys()
    if not common:
        raise UserError(f"{path} holds none of this encoder's weights; it holds {_some(list(state))}")
    for name in sorted(common):
        if state[name].shape != own[name].shape:
            there, here = tuple(state[name].shape), tuple(own[name].shape)
            raise UserError(f"{path} does not fit this encoder: {name} is {there} there and {here} here")
    model.load_state_dict(state, strict=False)
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    return Loaded(path, own, missing, [name for name in state if name not in own])


def timm_file(name: str) -> Path:
    """The file of a timm model's pretrained weights in the local cache; the Hub's before a plain address."""
    import timm

    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        raise UserError(f"timm has no pretrained weights for {name}; give {OPTION} or `none`")
    if cfg.hf_hub_id:
        return _from_hub(name, cfg.hf_hub_id, (cfg.hf_hub_filename,) if cfg.hf_hub_filename else HUB_FILES)
    return _from_address(name, cfg.url)


def _from_hub(name: str, repository: str, files: tuple[str, ...]) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    for file in files:
        cached = try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Path(cached)
    if may_download():
        return Path(hf_hub_download(repository, files[0]))
    raise _absent(name, f"{files[0]} of the Hugging Face repository {repository}")


def _from_address(name: str, url: str) -> Path:
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if not cached.is_file() and may_download():
        cached.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(cached))
    if not cached.is_file():
        raise _absent(name, url)
    return cached


def _absent(name: str, source: str) -> UserError:
    return UserError(
        f"the pretrained weights of {name} are not in the local cache: download {source} and give {OPTION}, "
        f"or set {DOWNLOAD}=1"
    )


def first_line(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip().splitlines()[0]


def _part(name: str) -> str:
    return name.split(".", 1)[0]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
