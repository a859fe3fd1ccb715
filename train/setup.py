"""A run before its first step: the network, what it starts from, its optimiser and its processes."""

import copy
from dataclasses import asdict
from pathlib import Path

import torch

from model.atomic import make_folder
from model.checkpoint import load_network
from model.errors import Ldr2hdrError
from model.masked_unet import MaskedUNet, NetworkConfig, initialise
from train.budget import Budget
from train.checkpoints import CHECKPOINT, read_checkpoint, restore
from train.config import Settings
from train.muon import Muon
from train.processes import start_fabric
from train.run import Listener, Run
from train.vgg import load_vgg


def set_up(
    settings: Settings, listener: Listener | None, resume: bool, credits: dict[str, str], began: float | None
) -> Run:
    """The run at its first step, or at the step of its checkpoint. began: see `Budget`."""
    fabric = start_fabric(settings.run)
    listener = listener if listener and fabric.is_global_zero else Listener()
    if fabric.world_size > 1:
        listener.message(f"{fabric.world_size} processes on {settings.run.num_nodes} machines train together.")
    out = Path(settings.run.out)
    make_folder(out)
    net = _network(settings, listener)
    optimiser = _optimiser(settings, net, fabric.device)
    vgg = load_vgg(settings.loss.perceptual, settings.loss.vgg_weights)
    if settings.loss.perceptual == "random":
        listener.message(
            "WARNING: the perceptual terms use a network with RANDOM weights, never trained on pictures; "
            "give --vgg-weights FILE for the loss of the paper. The weights' card will say so."
        )
    checkpoint = read_checkpoint(out / CHECKPOINT, net) if resume else None
    if checkpoint:
        net.load_state_dict(checkpoint["network"])
    if settings.run.channels_last:
        net = net.to(memory_format=torch.channels_last)
    wrapped, optimiser = fabric.setup(net, optimiser)
    average = copy.deepcopy(net).eval().requires_grad_(False)
    vgg = None if vgg is None else fabric.to_device(vgg)
    run = Run(settings, fabric, wrapped, net, average, optimiser, vgg, listener, credits)
    if checkpoint:
        restore(run, checkpoint)
    run.budget = Budget(began, run.position.seconds, unsaved=5 * sum(one.nbytes for one in net.parameters()))
    if checkpoint:
        listener.message(f"Resumed at step {run.position.step} from {out / CHECKPOINT}.")
    return run


def _network(settings: Settings, listener: Listener) -> MaskedUNet:
    """The network of the settings, Xavier-initialised, with the tensors of `run.init` that fit."""
    try:
        config = NetworkConfig(**asdict(settings.network))
    except ValueError as fault:
        raise Ldr2hdrError(f"The network's settings do not fit: {fault}.") from fault
    if settings.data.patch_size % 2**config.depth:
        raise Ldr2hdrError(
            f"A patch size of {settings.data.patch_size} is not a multiple of 2^depth = {2**config.depth}; change one."
        )
    net = initialise(MaskedUNet(config), settings.run.seed)
    if settings.run.init:
        given = load_network(settings.run.init).state_dict()
        own = net.state_dict()
        fitting = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
        if not fitting:
            raise Ldr2hdrError(
                f"{settings.run.init} has no layer of the shape that these settings call for; give its base_channels "
                "and depth, or omit them."
            )
        net.load_state_dict({**own, **fitting})
        fresh = len(own) - len(fitting)
        listener.message(f"Starting from {settings.run.init}" + (f"; {fresh} tensors are new." if fresh else "."))
    return net.train()


def _optimiser(settings: Settings, net: MaskedUNet, device: torch.device) -> torch.optim.Optimizer:
    """Fused where that exists, which also leaves the weights alone where a gradient is not finite, on the device.

    Gradients of fp16 are scaled, and Fabric clips those of unfused optimisers only.
    """
    rate, betas = settings.optimiser.learning_rate, (settings.optimiser.beta1, settings.optimiser.beta2)
    fused = device.type in ("cpu", "cuda") and settings.run.precision != "fp16"
    if settings.optimiser.optimiser == "muon":
        return Muon(net, rate, betas, fused=fused)
    return torch.optim.Adam(net.parameters(), rate, betas, fused=fused)
