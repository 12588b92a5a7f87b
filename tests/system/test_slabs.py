# SPDX-License-Identifier: Apache-2.0
"""Large inputs by shared memory: that they stay where they are, and that nothing depends on it."""

import fcntl
import mmap
import os
import signal
import socket
import struct
import time

import msgpack
import numpy as np
import pytest

import peer
from conftest import wait_until, write_toy
from peer import Client, Worker
from test_broker import status_value
from test_failures import answered, finish, start_job

VALUES = 8192  # a row is 32 KiB: too large to be packed
ROW_BYTES = VALUES * 4
PAGES = 64 * ROW_BYTES


@pytest.fixture
def wide(farm):
    write_toy(farm.models, "wide", "null", dims=(VALUES,))
    write_toy(farm.models, "slow", "delay", batch_max=4, dims=(VALUES,))
    return farm


def descriptors(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def mapped(process):
    with open(f"/proc/{process.pid}/maps") as maps:
        return sum("sonic-slab" in line for line in maps)


def run(farm, rows, tmp_path, n=400, *args):
    source, array = rows(n, dims=(VALUES,))
    out = tmp_path / "out.npy"
    done = farm.submit("wide", source, out, "--batch", 1, *args)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(out), array)


# ---- the ordinary course ------------------------------------------------------------------------


def test_large_inputs_stay_in_place(wide, rows, tmp_path):
    broker = wide.start_broker()
    worker = wide.start_worker()
    run(wide, rows, tmp_path, 400, "--window", 4)
    assert status_value(wide, "slabs_taken") == 1
    assert status_value(wide, "in_place") > 200
    # The client is gone: nobody holds its memory any more.
    wait_until(lambda: status_value(wide, "slabs") == 0, "the slab to be forgotten")
    wait_until(lambda: mapped(worker) == mapped(broker) == 0, "the slab to be unmapped")


def test_converted_inputs_are_laid_there_at_once(wide, tmp_path):
    """float64 becomes float32 in the slab; a second job of the same handle finds all of it free again."""
    wide.start_broker()
    wide.start_worker()
    array = np.random.default_rng(1).random((300, VALUES))
    sources = [tmp_path / f"{n}.npy" for n in range(2)]
    folder = tmp_path / "out"
    folder.mkdir()
    for source in sources:
        np.save(source, array)
    done = wide.submit("wide", sources[0], folder, "--input", sources[1], "--batch", 1, "--window", 8)
    assert done.returncode == 0, done.stderr
    for source in sources:
        assert np.array_equal(np.load(folder / source.name), array.astype(np.float32))
    assert status_value(wide, "in_place") > 400


def test_small_inputs_need_no_slab(farm, rows, tmp_path):
    farm.start_broker()
    farm.start_worker()
    source, array = rows(500)
    assert farm.submit("echo", source, tmp_path / "out.npy", "--batch", 1).returncode == 0
    assert status_value(farm, "slabs_taken") == 0


def test_a_worker_without_slabs_gets_frames(wide, rows, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    wide.start_broker("--worker", address)
    wide.worker = address
    wide.start_worker()
    run(wide, rows, tmp_path)
    assert status_value(wide, "slabs_taken") == 1
    assert status_value(wide, "in_place") == 0


def test_a_broker_without_slabs_gets_frames(wide, rows, tmp_path):
    wide.start_broker("--slabs", "0")
    wide.start_worker()
    run(wide, rows, tmp_path)
    assert status_value(wide, "slabs_taken") == 0


def test_a_full_slab_gives_frames(wide, rows, tmp_path):
    """A window of 64 requests of 32 KiB is twice what this broker lets a client share."""
    wide.start_broker("--slabs", "1M")
    wide.start_worker()
    run(wide, rows, tmp_path, 1000, "--window", 64)
    assert 0 < status_value(wide, "in_place") < 1000


# ---- failures -----------------------------------------------------------------------------------


def big_job(wide, rows, tmp_path, n):
    source, array = rows(n, dims=(VALUES,))
    job = start_job(wide, source, tmp_path / "out.npy", "--batch", 1, "--window", 16)
    wait_until(lambda: answered(wide) > 50, "the job to be under way")
    return job, array


def test_worker_killed_with_inputs_in_a_slab(wide, rows, tmp_path):
    wide.start_broker()
    doomed = wide.start_worker("w0", "delay:3000")
    wide.start_worker("w1", "delay:3000")
    job, array = big_job(wide, rows, tmp_path, 600)
    assert status_value(wide, "in_place") > 0
    doomed.kill()
    finish(job, tmp_path / "out.npy", array)


def test_broker_killed_with_inputs_in_a_slab(wide, rows, tmp_path):
    broker = wide.start_broker()
    wide.start_worker("w0", "delay:3000")
    job, array = big_job(wide, rows, tmp_path, 600)
    broker.kill()
    broker.wait()
    wide.start_broker()
    wait_until(lambda: status_value(wide, "in_place") > 0, "the slab to be shared again")
    finish(job, tmp_path / "out.npy", array)


def test_a_killed_client_leaves_no_slab(wide, rows, tmp_path):
    broker = wide.start_broker()
    worker = wide.start_worker("w0", "delay:3000")
    before = descriptors(broker)
    job, _ = big_job(wide, rows, tmp_path, 2000)
    assert mapped(worker) == mapped(broker) == 1
    job.kill()
    job.wait()
    wait_until(lambda: status_value(wide, "slabs") == 0, "the slab to be forgotten")
    wait_until(lambda: mapped(worker) == mapped(broker) == 0, "the slab to be unmapped")
    wait_until(lambda: descriptors(broker) <= before, "the descriptors to be closed")


# ---- another implementation, and liars ----------------------------------------------------------


def memory(size=PAGES, seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW):
    fd = os.memfd_create("sonic-slab", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    if seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def side(endpoint):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(20)
    connection.connect(endpoint.removeprefix("ipc://") + ".slabs")
    return connection


def send_side(endpoint, packet, fds=()):
    with side(endpoint) as connection:
        socket.send_fds(connection, [packet], list(fds))


def offer(farm, client, fds, size=PAGES, session=None, epoch=None):
    packet = [peer.OFFER, [epoch or client.epoch, session or client.session, size], []]
    send_side(farm.client, msgpack.packb(packet), fds)


def taken(client):
    _, fields, _, _ = client.receive(peer.TAKEN)
    return fields[1], fields[2]


def submit_in_slab(client, seq, slab, offset=0, rows=1, dtype=peer.FP32):
    item = [seq, 0, 0, [[dtype, [rows, VALUES], 1, slab, offset]]]
    client.send(peer.SUBMIT, [client.epoch, client.received, "wide", 0], [item])


def test_a_slab_of_another_implementation(wide):
    """The client and the worker are peer.py: the pages of the protocol are enough to share memory."""
    wide.start_broker()
    with Client(wide.client) as client, Worker(wide.worker) as worker:
        worker.join("w0", [peer.model("wide", VALUES, batch_max=64)])
        client.hello(want_bytes=64 << 20)
        assert client.slab_bytes_max == 256 << 20
        fd = memory()
        shared = mmap.mmap(fd, PAGES)
        offer(wide, client, [fd])
        slab, _ = taken(client)
        assert slab > 0
        with side(wide.worker) as connection:
            connection.send(msgpack.packb([peer.ATTEND, [worker.epoch, worker.session], []]))
            places = []
            for seq in range(1, 9):
                struct.pack_into("<f", shared, seq * ROW_BYTES, seq)
                submit_in_slab(client, seq, slab, seq * ROW_BYTES)
                _, _, items, frames = worker.receive(peer.DISPATCH)
                lease, _, [[_, _, place, where, offset]] = items[0]
                places.append(place)
                if place == 0:
                    data = frames[where]
                else:
                    data = memoryview(theirs)[offset : offset + ROW_BYTES]
                assert struct.unpack_from("<f", data)[0] == seq
                if seq == 4:  # told with the first one; until it says so a worker gets frames
                    packet, fds, _, _ = socket.recv_fds(connection, 512, 1)
                    number, (epoch, told, size), _ = msgpack.unpackb(packet)
                    assert (number, epoch, told, size) == (peer.SHARE, worker.epoch, slab, PAGES)
                    theirs = mmap.mmap(fds[0], PAGES, prot=mmap.PROT_READ)
                    worker.send(peer.MAPPED, [worker.epoch, slab])  # read before the RESULT
                result = [lease, 0, 1, 1, "", [[peer.FP32, [1, VALUES], 0, 2, 0]]]
                worker.send(peer.RESULT, [worker.epoch], [result], [b"", bytes(data)])
                assert client.answers(1)[seq] == (peer.OK, "", [float(seq)])
            assert places[:4] == [0] * 4 and places[4:] == [1] * 4
            client.send(peer.BYE, [client.epoch])
            packet = connection.recv(512)
            assert msgpack.unpackb(packet)[:2] == [peer.FORGET, [worker.epoch, slab]]


def test_hostile_slabs_harm_nobody(wide, rows, tmp_path):
    broker = wide.start_broker()
    wide.start_worker()
    plain = memory(seals=0)
    fine = memory()
    with open("/dev/zero", "rb") as zero, Client(wide.client) as client, Client(wide.client) as other:
        client.hello(want_bytes=64 << 20)
        other.hello(want_bytes=64 << 20)
        before = descriptors(broker)
        refused = [
            ([], PAGES, "descriptor"),
            ([plain], PAGES, "sealed"),
            ([zero.fileno()], PAGES, "sealed"),
            ([fine], 2 * PAGES, "size"),
            ([fine], 1 << 40, "--slabs"),
        ]
        for fds, size, word in refused:
            offer(wide, client, fds, size)
            slab, text = taken(client)
            assert slab == 0 and word in text
        assert status_value(wide, "slabs_refused") == len(refused)
        # Strangers, garbage, several descriptors, the wrong door: closed without a word.
        offer(wide, client, [fine], session=client.session + 1)
        offer(wide, client, [fine], epoch=client.epoch ^ 1)
        offer(wide, client, [fine] * 3)
        for packet in [b"\xc1" * 100, b"", os.urandom(200), b"x" * 4000]:
            send_side(wide.client, packet, [fine])
            send_side(wide.worker, packet, [fine])
        send_side(wide.client, msgpack.packb([peer.ATTEND, [client.epoch, client.session], []]))
        send_side(wide.worker, msgpack.packb([peer.OFFER, [client.epoch, client.session, PAGES], []]), [fine])
        silent = [side(wide.client) for _ in range(100)]
        offer(wide, client, [fine])
        slab, text = taken(client)  # the silent ones are shown the door in time
        assert slab > 0, text
        for connection in silent:
            connection.close()
        offer(wide, client, [fine])
        assert taken(client) == (slab, "this session has a slab already")
        # Places that are none, and other people's.
        places = [
            (slab + 1, 0, 1, peer.FP32),
            (0, 0, 1, peer.FP32),
            (slab, 32, 1, peer.FP32),
            (slab, PAGES - ROW_BYTES + 64, 1, peer.FP32),
            (slab, 2**64 - 64, 1, peer.FP32),
            (slab, 0, 65, peer.FP32),
        ]
        for seq, (number, offset, n, dtype) in enumerate(places):
            submit_in_slab(client, seq, number, offset, n, dtype)
            status, text, _ = client.answers(1)[seq]
            assert status == peer.BAD_REQUEST and ("slab" in text or "rows" in text), text
        submit_in_slab(other, 1, slab)
        assert other.answers(1)[1][0] == peer.BAD_REQUEST
        submit_in_slab(client, 100, slab)
        assert client.answers(1)[100][0] == peer.OK
        # A worker cannot speak for another's mappings, nor a result lie in a slab.
        with Worker(wide.worker) as liar:
            liar.join("liar", [peer.model("lies", VALUES)])
            liar.send(peer.MAPPED, [liar.epoch, slab])
            item = [5, 0, 0, [[peer.FP32, [1, VALUES], 1, slab, 0]]]
            client.send(peer.SUBMIT, [client.epoch, client.received, "lies", 0], [item])
            _, _, items, frames = liar.receive(peer.DISPATCH)
            assert items[0][2][0][2] == 0 and len(frames[2]) == ROW_BYTES
            result = [items[0][0], 0, 1, 1, "", [[peer.FP32, [1, VALUES], 1, slab, 0]]]
            liar.send(peer.RESULT, [liar.epoch], [result])
            assert client.answers(1)[5][0] == peer.EXEC_FAILED
        wait_until(lambda: descriptors(broker) <= before + 1, "all descriptors but the slab's to be closed")
    os.close(plain)
    os.close(fine)
    run(wide, rows, tmp_path)
    assert broker.alive()


def test_a_worker_lets_go_when_its_broker_is_gone(wide, rows, tmp_path):
    broker = wide.start_broker()
    worker = wide.start_worker("w0", "delay:3000")
    job, _ = big_job(wide, rows, tmp_path, 2000)
    assert mapped(worker) == 1
    broker.kill()
    broker.wait()
    job.kill()
    job.wait()
    wait_until(lambda: mapped(worker) == 0, "the slab to be unmapped")


def test_a_worker_that_misses_what_to_forget_forgets_all(wide):
    """FORGETs of hundreds of clients do not fit into the connection of a worker that stands still."""
    wide.start_broker()
    worker = wide.start_worker()
    clients = [Client(wide.client) for _ in range(400)]
    for n, client in enumerate(clients):
        client.hello(session=n + 1000, want_bytes=1 << 20)
        fd = memory(ROW_BYTES)
        offer(wide, client, [fd], ROW_BYTES)
        slab, text = taken(client)
        assert slab, text
        submit_in_slab(client, 1, slab)
        assert client.answers(1)[1][0] == peer.OK
        os.close(fd)
    wait_until(lambda: mapped(worker) == 400, "all slabs to be mapped")
    worker.kill(signal.SIGSTOP)
    try:
        for client in clients:
            client.send(peer.BYE, [client.epoch])
        wait_until(lambda: status_value(wide, "slabs") == 0, "the slabs to be forgotten")
    finally:
        worker.kill(signal.SIGCONT)
    wait_until(lambda: mapped(worker) == 0, "the slabs to be unmapped")
    for client in clients:
        client.close()


def test_a_descriptor_that_lingers_stops_nobody(wide):
    """The last close of such a socket takes as long as its owner likes."""
    wide.start_broker()
    wide.start_worker()
    with socket.socket() as listener, Client(wide.client) as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        trap = socket.socket()
        trap.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 40))
        trap.connect(listener.getsockname())
        trap.setblocking(False)
        try:
            while trap.send(b"x" * 65536):
                pass
        except BlockingIOError:
            pass
        client.hello(want_bytes=64 << 20)
        before = client.epoch
        send_side(wide.client, b"junk", [trap.fileno()])
        trap.close()
        started = time.monotonic()
        for seq in range(20):
            client.submit("echo", [seq])
            assert client.answers(1)[seq][0] == peer.OK
        assert client.epoch == before
        assert time.monotonic() - started < 30  # a deadline: less than it lingers
