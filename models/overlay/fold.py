# SPDX-License-Identifier: Apache-2.0
"""Passes over a Network: batch norms and activations go into their neighbours, exactly.

A batch norm (affine) goes into the convolution before it; or, before any, into the input's own
conversion; or into the convolution after it where that has no padding (the zeros around an image are
zeros after the norm, so a shift must not move through padding). What is left becomes a 1 × 1
convolution, which every affine and activation is.
"""
from dataclasses import replace

import numpy as np

from overlay.network import Activation, Unmappable

NONE = Activation()


def fold(network):
    """Folds in place until only conv, add, max_pool, mean and upsample are left; returns it."""
    while any(step(network) for step in (affine_back, activate_back, affine_to_input, affine_forward,
                                         add_back, to_conv)):
        pass
    heads(network)
    return network


def sole(network, value):
    """The one consumer of a value that is not an output, or None."""
    users = network.consumers(value)
    return users[0] if len(users) == 1 and value not in network.outputs.values() else None


def remove(network, op):
    """Takes an operation of one input out; its consumers read its input."""
    network.ops.remove(op)
    redirect(network, op.output, op.inputs[0])


def redirect(network, old, new):
    for user in network.ops:
        user.inputs = [new if v == old else v for v in user.inputs]
    network.outputs = {k: new if v == old else v for k, v in network.outputs.items()}


def plain(op):
    return op is not None and op.act == NONE


def affine_back(network):
    """conv, affine -> conv."""
    for op in network.ops:
        before = network.producer(op.inputs[0])
        if op.kind == "affine" and plain(before) and before.kind == "conv" and \
                sole(network, before.output) is op:
            before.weight = before.weight * op.scale[:, None, None, None]
            before.bias = before.bias * op.scale + op.shift
            remove(network, op)
            return True
    return False


def activate_back(network):
    """conv or add, activation -> the same with it."""
    for op in network.ops:
        before = network.producer(op.inputs[0])
        if op.kind == "activate" and plain(before) and before.kind in ("conv", "add") and \
                sole(network, before.output) is op:
            before.act = op.act
            remove(network, op)
            return True
    return False


def add_back(network):
    """conv, add -> conv with a second input: one rounding less. The sum moves to the convolution, so
    what it adds must be there by then."""
    for op in network.ops:
        if op.kind != "add":
            continue
        for conv, other in ((network.producer(v), w) for v, w in (op.inputs, op.inputs[::-1])):
            if plain(conv) and conv.kind == "conv" and len(conv.inputs) == 1 and \
                    sole(network, conv.output) is op and precedes(network, other, conv):
                conv.inputs.append(other)
                conv.act = op.act
                network.ops.remove(op)
                redirect(network, op.output, conv.output)
                return True
    return False


def precedes(network, value, op):
    producer = network.producer(value)
    return producer is None or network.ops.index(producer) < network.ops.index(op)


def affine_to_input(network):
    """input, upsampling, affine -> input by other scales, upsampling. Nearest upsampling copies."""
    value = network.input_value
    chain = []
    while (user := sole(network, value)) is not None and user.kind == "upsample":
        chain.append(user)
        value = user.output
    if user is None or user.kind != "affine" or len(user.scale) != network.shapes[value][2]:
        return False
    network.in_scale = network.in_scale * user.scale
    network.in_shift = network.in_shift * user.scale + user.shift
    remove(network, user)
    return True


def affine_forward(network):
    """affine, conv without padding -> conv."""
    for op in network.ops:
        user = sole(network, op.output)
        if op.kind == "affine" and user is not None and user.kind == "conv" and not any(user.pads):
            user.bias = user.bias + (user.weight @ op.shift).sum((1, 2))
            user.weight = user.weight * op.scale
            remove(network, op)
            return True
    return False


def to_conv(network):
    """What went nowhere becomes a convolution of its own."""
    for i, op in enumerate(network.ops):
        if op.kind in ("affine", "activate"):
            channels = network.shapes[op.output][2]
            scale = np.ones(channels) if op.scale is None else op.scale
            shift = np.zeros(channels) if op.shift is None else op.shift
            network.ops[i] = replace(op, kind="conv", weight=np.diag(scale)[:, None, None, :],
                                     bias=shift, scale=None, shift=None)
            return True
    return False


def heads(network):
    """The convolutions that end in outputs give FP32; softmax and sigmoid go into them."""
    if len(set(network.outputs.values())) < len(network.outputs):
        raise Unmappable(min(network.outputs), "two outputs are one and the same value")
    for op in [op for op in network.ops if op.kind in ("softmax", "sigmoid")]:
        before = network.producer(op.inputs[0])
        if op.output not in network.outputs.values() or not plain(before) or before.kind != "conv" or \
                sole(network, before.output) is not op:
            raise Unmappable(op.node, f"{op.kind} is known behind the last dense layer alone")
        before.head = op.kind
        remove(network, op)
    for output, value in network.outputs.items():
        op = network.producer(value)
        if op is None or op.kind != "conv" or network.shapes[value][:2] != (1, 1):
            raise Unmappable(op.node if op else output, f'output "{output}" does not come from a dense '
                             "layer")
        if network.consumers(value):
            raise Unmappable(op.node, f'output "{output}" is used inside the network as well')
        if op.act.slope != 1.0:
            raise Unmappable(op.node, f'output "{output}" ends in LeakyRelu')
        op.head = op.head or "linear"
