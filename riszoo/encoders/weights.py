"""Weights from a file or the local cache, checked against the encoder that they are loaded into.

Nothing is downloaded unless the environment variable RISZOO_DOWNLOAD is 1. RISZOO_HUB names a folder that contains
repositories of the Hugging Face hub, which are read from there instead of the cache.
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from riszoo.encoders.clip.archive import ARCHIVES, is_archive, read_archive
from riszoo.encoders.darknet import is_darknet_file, load_darknet
from riszoo.encoders.packages import in_package, package_path
from riszoo.errors import UserError, reason
from riszoo.files import check_not_pointer

log = logging.getLogger(__name__)

State = dict[str, Tensor]
DOWNLOAD, HUB = "RISZOO_DOWNLOAD", "RISZOO_HUB"
OPTION = "--model.vision.weights PATH"
WRAPPERS = ("model", "state_dict")
PREFIXES = ("module.", "model.", "backbone.")
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def may_download() -> bool:
    return os.environ.get(DOWNLOAD) == "1"


def hub_source(name: str) -> str:
    """Where a hub model is read from: an installed package, its folder in RISZOO_HUB, or the cache, by its name."""
    if in_package(name):
        return str(package_path(name))
    copy = None if Path(name).is_dir() else hub_copy(name)
    return name if copy is None else str(copy)


def hub_copy(name: str) -> Path | None:
    """The folder of a repository in the one that RISZOO_HUB names; None where there is none."""
    folder = os.environ.get(HUB)
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise UserError(f"{HUB} is {folder}, which is not a folder: set it to the folder that contains {name}")
    inside = Path(folder) / name
    return inside if inside.is_dir() else None


@dataclass
class Loaded:
    """The result of loading a file into a model.

    tensors     of the model, by name
    missing     names of the model that the file lacks
    unexpected  names in the file that the model lacks
    """

    path: Path
    tensors: State
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def check(self, encoder: nn.Module) -> None:
        """Raise unless the file filled all that `encoder` uses of the model; a head, for example, may differ."""
        used = {id(tensor) for tensor in (*encoder.parameters(), *encoder.buffers())}
        names = {name for name, tensor in self.tensors.items() if id(tensor) in used}
        if missing := [name for name in self.missing if name in names]:
            raise UserError(f"{self.path} lacks {some(missing)} of this encoder; give the weights of this architecture")
        parts = {first_part(name) for name in names}
        if unexpected := [name for name in self.unexpected if first_part(name) in parts]:
            raise UserError(
                f"{self.path} contains {some(unexpected)}, unknown to this encoder; check that it is not a larger "
                "architecture's"
            )
        if self.unexpected:
            log.info("%s: ignored %s", self.path, some(self.unexpected))


def load_weights(model: nn.Module, weights: str, name: str) -> Loaded:
    """Load `pretrained` weights, those of a package or a file into a whole timm model."""
    if in_package(weights):
        path = package_path(weights)
        return fill(model, in_order(read_state(path), model, path), path)
    path = timm_file(name) if weights == "pretrained" else existing(weights)
    if is_darknet_file(path):
        load_darknet(model, path)
        return Loaded(path, model.state_dict(keep_vars=True))
    return fill(model, adapted(read_state(path), model, path), path)


def existing(weights: str, option: str = OPTION) -> Path:
    """The file of a path; one of OpenAI's archives may also be in the cache and is then given by its name alone."""
    path, cached = Path(weights).expanduser(), Path(torch.hub.get_dir()) / "checkpoints" / weights
    if path.is_file():
        check_not_pointer(path)
        return path
    if weights in ARCHIVES and cached.is_file():
        return cached
    if weights in ARCHIVES:
        raise UserError(
            f"no CLIP weights at {cached}: download {ARCHIVES[weights]} to there, or give its path as {option}"
        )
    raise UserError(f"no weight file at {path}; {option} takes `none`, `pretrained` or the path of a file")


def read_state(path: Path, option: str = OPTION) -> State:
    """The tensors of a .safetensors, .pth, .pt or .bin file, unwrapped."""
    if path.suffix not in (".safetensors", ".pth", ".pt", ".bin"):
        raise UserError(f"{path} has an unknown format; {option} takes .safetensors, .pth, .pt or Darknet's .weights")
    try:
        content = load_file(path)
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise UserError(
            f"{path} cannot be read as {path.suffix} ({type(error).__name__}); download it again"
        ) from error
    state = unwrapped(content)
    if not state:
        raise UserError(f"{path} contains no named tensors; {option} takes the file of a state dict")
    return state


def load_file(path: Path) -> Any:
    if path.suffix == ".safetensors":
        import safetensors.torch

        return safetensors.torch.load_file(path)
    if is_archive(path):
        return read_archive(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def unwrapped(content: Any) -> State:
    """The state dict inside `model` or `state_dict`, without the prefixes that training wrappers add."""
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    items = content.items() if isinstance(content, dict) else ()
    state = {name: value for name, value in items if isinstance(value, Tensor)}
    for prefix in PREFIXES:
        inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if inside and (outside := [name for name in state if not name.startswith(prefix)]):
            log.info("ignored %s, which are outside %s", some(outside), prefix.removesuffix("."))
        state = inside or state
    return state


def adapted(state: State, model: nn.Module, path: Path) -> State:
    """The state as timm's loader of this architecture converts it: official names, tables resized to the model's."""
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if adapt is None:
        return state
    try:
        return dict(adapt(state, model))
    except (AttributeError, KeyError, IndexError, RuntimeError) as error:
        raise UserError(
            f"{path} does not fit {type(model).__name__} with these options: {first_line(error)}"
        ) from error


def in_order(state: State, model: nn.Module, path: Path) -> State:
    """The state of the same network under another project's names, renamed by the order of its tensors.

    Tensors after those of the model, such as a head's, are left out.
    """
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    given = [tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")]
    renamed = dict(zip(own, given, strict=False))
    if len(renamed) < len(own) or any(renamed[name].shape != tensor.shape for name, tensor in own.items()):
        raise UserError(f"{path} contains another network than {type(model).__name__}: choose the timm model it is for")
    return renamed


def fill(model: nn.Module, state: State, path: Path) -> Loaded:
    """Load by name; a different shape, or no name in common, is an error."""
    own: State = model.state_dict(keep_vars=True)
    common = own.keys() & state.keys()
    if not common:
        raise UserError(f"{path} contains none of this encoder's weights; it contains {some(list(state))}")
    for name in sorted(common):
        if state[name].shape != own[name].shape:
            raise UserError(
                f"{path} does not fit this encoder: {name} is {tuple(state[name].shape)} in the file and "
                f"{tuple(own[name].shape)} in the encoder; give the weights of this architecture"
            )
    model.load_state_dict(state, strict=False)
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    return Loaded(path, own, missing, [name for name in state if name not in own])


def timm_file(name: str) -> Path:
    """A timm model's pretrained weights in the local cache, from the Hugging Face Hub or from a URL."""
    import timm  # here, so that text encoders do not load it

    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        raise UserError(f"timm has no pretrained weights for {name}; give {OPTION} or `none`")
    if cfg.hf_hub_id:
        return hub_file(name, cfg.hf_hub_id, (cfg.hf_hub_filename,) if cfg.hf_hub_filename else HUB_FILES)
    return url_file(name, cfg.url)


def hub_file(name: str, repository: str, files: tuple[str, ...]) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    copy = hub_copy(repository)
    if copy is not None:
        return file_of_copy(copy, files)
    source = f"{files[0]} of the Hugging Face repository {repository}"
    for file in files:
        cached = try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Path(cached)
    if may_download():
        try:
            return Path(hf_hub_download(repository, files[0]))
        except Exception as error:  # the client raises errors of several libraries
            raise not_downloaded(name, source, error) from error
    raise not_cached(name, source, f"set {HUB} to the folder that contains {repository}/, or ")


def file_of_copy(copy: Path, files: tuple[str, ...]) -> Path:
    """The first of these files that a repository's folder in RISZOO_HUB contains."""
    found = next((copy / file for file in files if (copy / file).is_file()), None)
    if found is None:
        raise UserError(f"{copy} contains no {' or '.join(files)}: copy it to there, or unset {HUB}")
    check_not_pointer(found)
    return found


def url_file(name: str, url: str) -> Path:
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if not cached.is_file() and may_download():
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(cached))
        except Exception as error:  # of the network, the disk or the server
            raise not_downloaded(name, url, error) from error
    if not cached.is_file():
        raise not_cached(name, url)
    return cached


def not_cached(name: str, source: str, alternative: str = "") -> UserError:
    return UserError(
        f"the pretrained weights of {name} are not in the local cache: download {source} and give {OPTION}, "
        f"or {alternative}set {DOWNLOAD}=1"
    )


def not_downloaded(name: str, source: str, error: Exception) -> UserError:
    return UserError(
        f"the pretrained weights of {name} cannot be downloaded from {source} ({type(error).__name__}: "
        f"{reason(error, 80)}): check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or get the file and give {OPTION}"
    )


def first_line(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip().splitlines()[0]


def first_part(name: str) -> str:
    return name.split(".", 1)[0]


def some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
