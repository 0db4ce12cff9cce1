"""FSDP2, `--trainer.strategy fsdp2`: each device stores a share of all weights, gradients and optimiser states.

The weights of one repeated block at a time are gathered while it runs. A checkpoint is one file with whole tensors, as
that of any other training, so any number of devices continues from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from riszoo.blocks import repeated_blocks
from riszoo.errors import UserError
from riszoo.layers import LearnedToken

if TYPE_CHECKING:
    from riszoo.model import RISModule


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's FSDP2, with riszoo's checkpoints: Lightning's own matches optimiser states by the model's order."""

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def setup_environment(self) -> None:
        """Shard over all devices of all machines."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_processes * self.num_nodes, 1
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """The whole checkpoint, checked; every process reads it."""
        content: dict[str, Any] = self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)
        return content

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.model is not None
        own, whole = self.model.state_dict(), checkpoint["state_dict"]
        self.model.load_state_dict({name: share(value, own.get(name)) for name, value in whole.items()}, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """States of parameters are numbered in a file; the order of the groups tells which parameter has which."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            numbers = [number for group in saved["param_groups"] for number in group["params"]]
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            own = dict(zip(numbers, parameters, strict=True))
            states = {
                number: {name: share(value, own[number]) for name, value in state.items()}
                for number, state in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": states})


def share(whole: Tensor, own: Tensor | None) -> Tensor:
    """This process's share of a tensor that is sharded as `own`; any other tensor, such as a step count, as it is."""
    if not isinstance(own, DTensor) or isinstance(whole, DTensor) or whole.shape != own.shape:
        return whole
    return distribute_tensor(whole.contiguous(), own.device_mesh, own.placements, src_data_rank=None)


def shard(model: RISModule, mesh: DeviceMesh) -> None:
    """Shard the encoders' repeated blocks one by one, then the rest of the model; a sharded model stays as it is."""
    if isinstance(model, FSDPModule):
        return
    if model.optim.ema:
        raise UserError("--trainer.strategy fsdp2 cannot average sharded weights: give --model.optim.ema 0, or use ddp")
    model.memory_format = torch.contiguous_format  # shares of another layout are not supported
    model.to(memory_format=model.memory_format)
    model.learned_tokens = frozenset(n for n, p in model.named_parameters() if isinstance(p, LearnedToken))
    for block in [*repeated_blocks(model.vision), *repeated_blocks(model.text)]:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
