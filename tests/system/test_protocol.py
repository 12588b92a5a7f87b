# SPDX-License-Identifier: Apache-2.0
"""The wire from a second implementation's side (peer.py knows only docs/protocol.md)."""

import os
import random
import struct

import msgpack
import pytest

import peer
from conftest import wait_until
from peer import Client, Worker


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def test_requests_are_answered_once_each(farm):
    farm.start_broker()
    farm.start_worker()
    with Client(farm.client) as client:
        assert client.hello()[0] == peer.WELCOME
        for turn in range(10):
            seqs = range(turn * 50, turn * 50 + 50)
            client.submit("echo", seqs)
            got = client.answers(50)
            assert {s: v for s, (status, _, (v,)) in got.items() if status == peer.OK} == {s: float(s) for s in seqs}


def test_version_without_overlap_is_refused_in_words(farm):
    farm.start_broker()
    with Client(farm.client) as client:
        number, fields = client.hello(versions=(7, 9))
        assert number == peer.REFUSE
        assert fields[1] == peer.VERSION
        assert b"7" in fields[3].encode() and b"9" in fields[3].encode()
    with Worker(farm.worker) as worker:
        number, fields, _ = worker.join("old", [peer.model("echo")], versions=(0, 0))
        assert (number, fields[1]) == (peer.REFUSE, peer.VERSION)


def test_newer_peer_is_served_at_the_common_version(farm):
    farm.start_broker()
    with Client(farm.client) as client:
        number, fields = client.hello(versions=(1, 9))
        assert number == peer.WELCOME and fields[0] == 1


def test_unknown_session_is_told_to_register_again(farm):
    farm.start_broker()
    with Client(farm.client) as client:
        client.submit("echo", [1])
        _, fields, _, _ = client.receive(peer.REFUSE)
        assert fields[1] == peer.REGISTER_AGAIN
        assert client.hello()[0] == peer.WELCOME


def test_wrong_epoch_is_told_to_register_again(farm):
    farm.start_broker()
    farm.start_worker()
    with Client(farm.client) as client:
        client.hello()
        client.epoch ^= 1
        client.submit("echo", [1])
        _, fields, _, _ = client.receive(peer.REFUSE)
        assert fields[1] == peer.REGISTER_AGAIN


def test_window_overrun_is_busy_and_stores_nothing(farm):
    farm.start_broker()
    farm.start_worker("w0", "delay:100000")
    with Client(farm.client) as client:
        client.hello(want_requests=4)
        window = client.window
        client.submit("slow", range(window + 10))
        got = client.answers(window + 10, seconds=60)
        busy = [s for s, (status, _, _) in got.items() if status == peer.BUSY]
        assert len(busy) == 10
        assert client.received == window


def test_unacknowledged_answers_hold_the_window(farm):
    farm.start_broker()
    farm.start_worker()
    with Client(farm.client) as client:
        client.hello(want_requests=8)
        window = client.window
        client.submit("echo", range(window))
        client.answers(window)
        acknowledged, client.received = client.received, 0
        client.submit("echo", [100])
        assert client.answers(1)[100][0] == peer.BUSY
        client.received = acknowledged
        client.submit("echo", [101])
        assert client.answers(1)[101][0] == peer.OK


@pytest.mark.parametrize(
    "model, dtype, dims, size, want",
    [
        ("echo", 12, [1, 15], 60, peer.BAD_REQUEST),
        ("echo", 13, [1, 16], 128, peer.BAD_REQUEST),
        ("echo", 12, [16], 64, peer.BAD_REQUEST),
        ("echo", 12, [0, 16], 0, peer.BAD_REQUEST),
        ("echo", 12, [1025, 16], 65600, peer.BAD_REQUEST),
        ("nosuch", 12, [1, 16], 64, peer.MODEL_UNKNOWN),
    ],
)
def test_request_that_does_not_fit_is_refused_in_words(farm, model, dtype, dims, size, want):
    farm.start_broker()
    farm.start_worker()
    with Client(farm.client) as client:
        client.hello()

        def ask():
            large = size > 16384
            place = [0, 2, 0] if large else [0, 1, 0]
            frames = [b"", b"\0" * size] if large else [b"\0" * size]
            client.send(peer.SUBMIT, [client.epoch, client.received, model, 0], [[1, 0, 0, [[dtype, dims, *place]]]], frames)
            return client.answers(1)[1]

        # A broker that has just started says BUSY for a model it may yet hear of.
        status, text, values = wait_until(lambda: (a := ask())[0] != peer.BUSY and a, "a final answer", 30)
        assert status == want
        assert model in text and values == []


def test_deadline_in_the_queue(farm):
    farm.start_broker()
    farm.start_worker("w0", "delay:300000")
    with Client(farm.client) as client:
        client.hello()
        client.submit("slow", range(30), deadline_us=0)
        client.submit("slow", [99], deadline_us=50_000)
        while True:
            got = client.answers(1)
            if 99 in got:
                assert got[99][0] == peer.DEADLINE
                return


def test_cancel_queued_and_leased(farm):
    farm.start_broker()
    farm.start_worker("w0", "delay:200000")
    with Client(farm.client) as client:
        client.hello()
        client.submit("slow", range(20))
        client.send(peer.CANCEL, [client.epoch], [[s] for s in range(20)])
        got = client.answers(20)
        assert set(s for s, _, _ in got.values()) <= {peer.OK, peer.CANCELLED}
        assert sum(s == peer.CANCELLED for s, _, _ in got.values()) >= 10


def test_worker_that_answers_nonsense_harms_only_itself(farm):
    """Wrong shapes, leases that are not its own, results twice: EXEC_FAILED in words or nothing."""
    farm.start_broker()
    with Worker(farm.worker) as worker, Client(farm.client) as client:
        assert worker.join("liar", [peer.model("echo")])[0] == peer.ACCEPT
        client.hello()
        client.submit("echo", [1])
        _, fields, items, _ = worker.receive(peer.DISPATCH)
        lease = items[0][0]
        wrong = [[lease, 0, 5, 1, "", [[12, [1, 3], 0, 1, 0]]]]
        worker.send(peer.RESULT, [worker.epoch], [[lease ^ (7 << 32), 0, 5, 1, "", []]])
        worker.send(peer.RESULT, [worker.epoch], wrong, [b"\0" * 12])
        status, text, values = client.answers(1)[1]
        assert status == peer.EXEC_FAILED and text and values == []
        worker.send(peer.RESULT, [worker.epoch], wrong, [b"\0" * 12])
        client.submit("echo", [2])
        _, _, items, frames = worker.receive(peer.DISPATCH)
        good = [[items[0][0], 0, 5, 1, "", [[12, [1, 16], 0, 1, 0]]]]
        worker.send(peer.RESULT, [worker.epoch], good, [struct.pack("<16f", *[2.0] * 16)])
        assert client.answers(1)[2] == (peer.OK, "", [2.0])


def test_model_declared_differently_is_refused_for_that_worker(farm):
    farm.start_broker()
    farm.start_worker()
    with Worker(farm.worker) as worker:
        number, _, items = worker.join("other", [peer.model("echo", values=17), peer.model("extra")])
        assert number == peer.ACCEPT
        assert [i[0] for i in items] == ["echo"]
        assert "16" in items[0][1] and "17" in items[0][1]


def hostile_frames(rng):
    """Frames that no honest peer sends."""
    kind = rng.randrange(8)
    if kind == 0:
        return [rng.randbytes(rng.randrange(1, 300)) for _ in range(rng.randrange(1, 5))]
    if kind == 1:
        return [b"\xdd\x10\x00\x00\x00"]
    if kind == 2:
        return [msgpack.packb([rng.randrange(30), [rng.randrange(1 << 40)] * rng.randrange(12), []])]
    if kind == 3:
        return [b"x"] * rng.randrange(120, 400)
    if kind == 4:
        return [b"\x91" * 70000]
    if kind == 5:
        item = [1, 0, 0, [[12, [1 << 62, 1 << 62], 0, 1, 0]]]
        return [msgpack.packb([peer.SUBMIT, [0, 0, "echo", 0], [item] * rng.randrange(1, 50)]), b"\0"]
    if kind == 6:
        return [b""] * rng.randrange(1, 4)
    item = [rng.randrange(1 << 64), 0, 0, 0, "", [[12, [1, 16], 0, rng.randrange(9), rng.randrange(1 << 64)]]]
    return [msgpack.packb([peer.RESULT, [rng.randrange(1 << 64)], [item]]), rng.randbytes(64)]


@pytest.mark.parametrize("joined", [False, True])
def test_hostile_frames_at_both_sockets(farm, rows, tmp_path, joined):
    """Error or nothing, counted in status; never a crash, a hang or growth; honest work goes on."""
    broker = farm.start_broker()
    farm.start_worker()
    seed = int(os.environ.get("SONIC_TEST_SEED", "1"))
    rng = random.Random(seed)
    print(f"SONIC_TEST_SEED={seed}")
    with Client(farm.client) as client, Worker(farm.worker) as worker:
        if joined:
            client.hello()
            worker.join("hostile", [peer.model("other")])
        for round_ in range(4):
            for _ in range(1500):
                client.send_raw(hostile_frames(rng))
                worker.send_raw(hostile_frames(rng))
            while not client.quiet(0.2):
                pass
            if round_ == 0:
                warm = rss_kib(broker.pid)
        assert broker.alive()
        # The address sanitizer keeps 256 MiB of freed blocks aside.
        slack = 400_000 if "ASAN_OPTIONS" in os.environ else 20_000
        assert rss_kib(broker.pid) < warm + slack
    source, _ = rows(100)
    done = farm.submit("echo", source, tmp_path / "out.npy")
    assert done.returncode == 0, done.stderr
    counted = [line for line in farm.ask("status").stdout.splitlines() if "wire_" in line or "protocol" in line]
    assert any(int(word) > 0 for line in counted for word in line.replace("=", " ").split() if word.isdigit()), counted
