"""Weights cut into shards: each of a run's devices keeps its part, and a block is whole only while it computes.

Fully sharded data parallelism by torch's ``fully_shard`` (Zhao et al. 2023, arXiv 2304.11277; the idea is ZeRO's,
Rajbhandari et al. 2020, arXiv 1910.02054). What is cut follows from what trains:

- A method that adds numbers of its own (LoRA, prompts, a head): the frozen weights of the blocks. The little that
  trains, and what lies outside the blocks, is whole everywhere, and its gradients are added up as without shards.
- A method that trains the base's own weights: all of them, with their gradients and the optimiser's moments. torch adds
  the gradients up shard by shard, within the backward pass.

What is written down (checkpoints, trained weights) is whole, and the first process writes it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from adaptlab.methods._base import Attached
from adaptlab.training.ranks import here


def shard(attached: Attached, base: nn.Module, device: torch.device) -> None:
    """Cut the weights of ``attached``, block by block; what is not cut moves to ``device`` as it is.

    Args:
        attached: prepared, its weights on the CPU or on ``device``. Its trained parameters become other objects where
            they are cut.
        base: the Hugging Face model in it.
    """
    model, layout = attached.model, attached.layout
    mesh = init_device_mesh(device.type, (here().count,))
    blocks = [base.get_submodule(name) for name in layout.blocks]
    kept: set[nn.Parameter] = set()
    if not attached.method.trains_of_base(layout, attached.setup):
        inside = {parameter for block in blocks for parameter in block.parameters()}
        kept = {parameter for parameter in model.parameters() if parameter.requires_grad or parameter not in inside}
    # What a block gives may be a view; what follows in transformers' models does not write into it, as checkpointing of
    # gradients asks of them too.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    places = {parameter: (module, leaf) for module, leaf, parameter in _held(model)}
    for module in (*blocks, model):
        cut: FSDPModule = fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=kept)
        cut.set_gradient_divide_factor(1.0)  # a sum, not a mean: losses are divided by the whole batch's rows
        cut.set_force_sum_reduction_for_comms(True)
    for tensor in (*kept, *model.buffers()):
        tensor.data = tensor.data.to(device)
    attached.state.update({name: tensor.to(device) for name, tensor in attached.state.items()})

    def now(parameter: nn.Parameter) -> nn.Parameter:
        module, leaf = places[parameter]
        return getattr(module, leaf)  # type: ignore[no-any-return]

    attached.parameters = {name: now(parameter) for name, parameter in attached.parameters.items()}
    attached.head = {name: now(parameter) for name, parameter in attached.head.items()}


def whole(tensor: Tensor) -> Tensor:
    """``tensor`` put together on the first process's CPU if it is cut (then empty on the others), else itself.

    Every process has to call it for the same tensors in the same order.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    full = tensor.full_tensor()
    return full.cpu() if here().first else full.new_empty(0, device="cpu")


def cut_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of ``tensor``, if it is a number for each of ``parameter``'s and they are cut."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    on_device = tensor.to(parameter.to_local().device)
    return distribute_tensor(on_device, parameter.device_mesh, parameter.placements, src_data_rank=None)


def gather(attached: Attached) -> None:
    """Put together what ``attached`` has trained, and its head, in the first process's model, so that it can be saved.

    Every process has to call it; the model computes nothing any more.
    """
    head, done = set(attached.layout.head), {}
    trained = {id(parameter): name for name, parameter in attached.trained.items()}
    names = {id(parameter): name for name, parameter in attached.model.named_parameters()}
    for module, leaf, parameter in list(_held(attached.model)):
        if isinstance(parameter, DTensor) and (id(parameter) in trained or names[id(parameter)] in head):
            if id(parameter) not in done:  # tied weights stay tied
                done[id(parameter)] = nn.Parameter(whole(parameter.detach()), requires_grad=parameter.requires_grad)
            module._parameters[leaf] = done[id(parameter)]
    for held in (attached.parameters, attached.head):
        held |= {name: done[id(parameter)] for name, parameter in held.items() if id(parameter) in done}


def _held(model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """Every parameter with the module that holds it and its name there."""
    for module in model.modules():
        for leaf, parameter in module._parameters.items():
            if parameter is not None:
                yield module, leaf, parameter
