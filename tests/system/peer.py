# SPDX-License-Identifier: Apache-2.0
"""A second implementation of the wire, small and independent: pyzmq, msgpack, nothing of ours.

It keeps the protocol honest (docs/protocol.md is all it was written from) and can also misbehave.
"""

import math
import struct
import time

import msgpack
import zmq

HELLO, WELCOME, SUBMIT, ANSWER, CANCEL, WANT, CREDIT, QUERY, REPLY, CATALOG = range(1, 11)
BYE, BEAT, REFUSE, OFFER, TAKEN = range(11, 16)
JOIN, ACCEPT, DISPATCH, RESULT, REVOKE, HEARTBEAT, ATTEND, SHARE, MAPPED, FORGET = range(20, 30)
OK, BUSY, REGISTER_AGAIN, MODEL_UNKNOWN, BAD_REQUEST, DEADLINE, CANCELLED = range(7)
EXEC_FAILED, POISON, NOT_LOADED, QUEUE_FULL, VERSION, PROTOCOL, LOST, DEVICE_FAULT = range(7, 15)
FP32 = 12


def follow(tensors):
    """The tensors of an item with nil, from those of the item before it."""
    dtype, dims, place, frame, offset = tensors[-1]
    end, following = offset + math.prod(dims) * 4, []
    for dtype, dims, place, frame, _ in tensors:
        offset = end + -end % 64
        following.append([dtype, dims, place, frame, offset])
        end = offset + math.prod(dims) * 4
    return following


class Peer:
    """A DEALER that speaks headers as Python lists."""

    def __init__(self, endpoint):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.immediate = 1
        self.socket.connect(endpoint)
        self.epoch = 0

    def close(self):
        self.socket.close()
        self.context.term()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, number, fields, items=(), frames=()):
        self.send_raw([msgpack.packb([number, list(fields), list(items)]), *frames])

    def send_raw(self, frames, seconds=10):
        if not self.socket.poll(int(seconds * 1000), zmq.POLLOUT):
            raise TimeoutError("the broker takes nothing")
        self.socket.send_multipart(frames)

    def receive(self, *wanted, seconds=20):
        """The next message of a wanted kind: (number, fields, items, frames). BEATs are passed over."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not self.socket.poll(int(left * 1000)):
                raise TimeoutError(f"no message of kind {wanted} in {seconds} s")
            frames = self.socket.recv_multipart()
            number, fields, items = msgpack.unpackb(frames[0])[:3]
            if number in wanted or not wanted and number != BEAT:
                return number, fields, items, frames

    def quiet(self, seconds=0.5):
        """Whether nothing but BEATs comes for so long."""
        try:
            self.receive(seconds=seconds)
        except TimeoutError:
            return True
        return False


class Client(Peer):
    received = 0  # answers to acknowledge

    def hello(self, session=None, want_requests=64, want_bytes=1 << 20, need=0, versions=(1, 1), tenant="test"):
        self.session = session or time.monotonic_ns()
        self.received = 0
        self.send(HELLO, [*versions, self.session, tenant, "peer.py", want_requests, want_bytes, need])
        number, fields, _, _ = self.receive(WELCOME, REFUSE)
        if number == WELCOME:
            self.epoch = fields[1]
            self.window = fields[3]
            self.slab_bytes_max = fields[7]
        return number, fields

    def submit(self, model, seqs, values=16, rows=1, deadline_us=0, priority=0):
        """Requests of `rows` x `values` floats, each filled with its seq."""
        items, packed = [], b""
        for seq in seqs:
            packed += b"\0" * (-len(packed) % 64)
            items.append([seq, priority, deadline_us, [[FP32, [rows, values], 0, 1, len(packed)]]])
            packed += struct.pack(f"<{rows * values}f", *[float(seq)] * (rows * values))
        self.send(SUBMIT, [self.epoch, self.received, model, 0], items, [packed])

    def answers(self, n, seconds=20):
        """n answers: {seq: (status, text, [first value of each output])}."""
        got = {}
        while len(got) < n:
            _, _, items, frames = self.receive(ANSWER, seconds=seconds)
            before = None
            for item in items:
                seq, status, acknowledge = item[0], item[1], item[2]
                self.received += acknowledge
                before = tensors = item[8] if item[8] is not None else follow(before)
                values = []
                for dtype, dims, place, where, offset in tensors:
                    assert (dtype, place) == (FP32, 0)
                    values.append(struct.unpack_from("<f", frames[where], offset)[0])
                assert seq not in got, f"request {seq} was answered twice"
                got[seq] = (status, item[7], values)
        return got


class Worker(Peer):
    """A worker that does only what a test tells it to."""

    def join(self, name, models, slots=1, room=64, versions=(1, 1)):
        self.session = time.monotonic_ns()
        self.send(
            JOIN,
            [*versions, self.session, name, "test", "a test", slots, room, 1 << 30, 0, 0],
            models,
        )
        number, fields, items, _ = self.receive(ACCEPT, REFUSE)
        if number == ACCEPT:
            self.epoch = fields[1]
        return number, fields, items


def model(name, values=16, batch_max=1024, dtype=FP32):
    """A model item of JOIN."""
    spec = [["x", dtype, [values]]], [["y", dtype, [values]]]
    return [name, 1, batch_max, 1, 0, [], 0, 0, 0, 0, 0, 1, *spec]
