# SPDX-License-Identifier: Apache-2.0
"""What the broker does when it is told to stop."""

import resource
import signal
import socket

import peer
from conftest import BROKER, wait_until
from peer import Client


def status_value(farm, key):
    lines = farm.ask("status").stdout.splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + " "))


def test_broker_told_to_stop_answers_what_it_accepted(farm):
    """Also with a registry: its thread must not be the one that gets the signal."""
    farm.start_redis()
    broker = farm.start_broker()
    farm.start_worker("w0", "delay:100000")
    with Client(farm.client) as client:
        client.hello()
        client.submit("slow", range(12))
        wait_until(lambda: status_value(farm, "accepted") == 12, "the requests to be accepted")
        broker.kill(signal.SIGTERM)
        wait_until(lambda: "event=stopping" in broker.text(), "the broker to begin to stop")
        client.submit("slow", [100])
        got = client.answers(13)
        assert got[100][0] == peer.BUSY
        assert all(status == peer.OK for seq, (status, _, _) in got.items() if seq != 100)
    assert broker.wait(20) == 0
    assert "event=stopped" in broker.text()


def test_idle_broker_stops_at_once(farm):
    broker = farm.start_broker()
    broker.kill(signal.SIGINT)
    assert broker.wait(20) == 0


def turned_away(client):
    """As an open session is told; a new one would be turned away itself."""
    client.send(peer.QUERY, [7, 1])
    _, _, _, frames = client.receive(peer.REPLY)
    return next(int(line.split()[1]) for line in frames[1].decode().splitlines() if line.startswith("turned_away "))


def test_short_of_descriptors_serves_who_is_there(farm):
    """libzmq ends a process whose ipc listener finds no descriptor: the broker turns who is over away."""
    hard = 512
    broker = farm.start(
        "broker", BROKER, "--client", farm.client, "--worker", farm.worker, "--models", farm.models,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard)),
    )
    wait_until(lambda: farm.ask("status").returncode == 0, "the broker to answer")
    farm.start_worker()
    strangers = []
    with Client(farm.client) as client:
        client.hello()
        for _ in range(2 * hard):
            stranger = socket.socket(socket.AF_UNIX)
            stranger.connect(farm.client.removeprefix("ipc://"))
            strangers.append(stranger)
        client.submit("echo", range(50))
        assert all(status == peer.OK for status, _, _ in client.answers(50).values())
        wait_until(lambda: turned_away(client) >= hard, "the others to be turned away")
        for stranger in strangers:
            stranger.close()
        wait_until(lambda: farm.ask("status").returncode == 0, "new clients to be let in again")
    assert broker.alive()
