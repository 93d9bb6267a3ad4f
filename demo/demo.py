"""A disk image that lives through the death of a node.

Starts three sheep on this host, keeps a file system in a virtual disk with two copies of
everything, kills a sheep, and proves that no byte is lost.  It uses what an administrator
would use: the commands ``sheep`` and ``dog``, and ``mke2fs`` and ``e2fsck`` for the image.
"""

import argparse
import hashlib
import itertools
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HOST = "127.0.0.1"
BIN = pathlib.Path(sys.executable).parent
SOURCE = pathlib.Path(__file__).resolve().parent.parent
MIB = 1 << 20
IMAGE_SIZE = 96 * MIB
WAIT_LIMIT = 60


class DemoFailed(Exception):
    """Something is not as it should be; the text says what."""


def say(text):
    print("[%4.1f s] %s" % (time.monotonic() - STARTED, text), flush=True)


def run(*argv, data=None):
    """Run a command; returns what it prints."""
    argv = [str(word) for word in argv]
    try:
        done = subprocess.run(argv, input=data, stdin=None if data else subprocess.DEVNULL,
                              capture_output=True, timeout=WAIT_LIMIT)
    except FileNotFoundError:
        raise DemoFailed("the command '%s' is not installed" % argv[0]) from None
    except subprocess.TimeoutExpired:
        raise DemoFailed("'%s' took longer than %d s" % (" ".join(argv), WAIT_LIMIT)) from None
    if done.returncode:
        raise DemoFailed("'%s' ended with status %d: %s" % (
            " ".join(argv), done.returncode, done.stderr.decode(errors="replace").strip()))
    return done.stdout


def wait_for(what, condition):
    deadline = time.monotonic() + WAIT_LIMIT
    while not condition():
        if time.monotonic() > deadline:
            raise DemoFailed("waited %d s in vain for %s" % (WAIT_LIMIT, what))
        time.sleep(0.1)


def free_ports(count):
    """TCP ports of loopback on which nobody listens, from Sheepdog's own on."""
    found = []
    for port in itertools.takewhile(lambda port: port < 8000, itertools.count(7000)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise DemoFailed("no free TCP port between 7000 and 7999")


class Cluster:
    """Three sheep in directories below ``root``."""

    def __init__(self, root, ports):
        self.root = root
        self.ports = ports
        self.processes = {}

    def argv(self, index):
        return [str(BIN / "sheep"), "-f", "-b", HOST, "-p", str(self.ports[index]),
                "-z", str(index + 1), "-c", "local:%s" % (self.root / "coordination"),
                str(self.store(index))]

    def store(self, index):
        return self.root / ("sheep%d" % index)

    def log(self, index):
        return self.root / ("sheep%d.log" % index)

    def start(self):
        for index in range(len(self.ports)):
            with open(self.log(index), "ab") as log:
                try:
                    self.processes[index] = subprocess.Popen(
                        self.argv(index), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                        start_new_session=True)
                except FileNotFoundError:
                    raise DemoFailed("sheepstack is not installed: start this with 'make demo'"
                                     ) from None
        for index in range(len(self.ports)):
            wait_for("sheep %d to listen" % index, lambda: self.listens(index))
        wait_for("the sheep to find one another", lambda: len(self.nodes()) == len(self.ports))

    def listens(self, index):
        process = self.processes[index]
        if process.poll() is not None:
            raise DemoFailed("sheep %d ended with status %d; its log:\n%s" % (
                index, process.returncode, self.log(index).read_text(errors="replace")))
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.ports[index])) == 0

    def dog(self, *words, data=None):
        port = next(self.ports[i] for i, p in self.processes.items() if p.poll() is None)
        return run(BIN / "dog", *words, "-a", HOST, "-p", port, data=data)

    def nodes(self):
        return self.dog("node", "list", "-r").splitlines()

    def recovering(self):
        return self.dog("node", "recovery", "-r").splitlines()

    def kill(self, index):
        self.processes[index].send_signal(signal.SIGKILL)
        self.processes[index].wait()

    def objects(self, index):
        """Names of the objects that a sheep holds: 16 hexadecimal digits each."""
        return {path.name for path in (self.store(index) / "obj").iterdir()
                if len(path.name) == 16}

    def lacking_copies(self):
        """Objects that only one of the two living sheep holds."""
        return self.objects(0) ^ self.objects(1)

    def shut_down(self):
        self.dog("cluster", "shutdown")
        for index, process in self.processes.items():
            try:
                process.wait(WAIT_LIMIT)
            except subprocess.TimeoutExpired:
                raise DemoFailed("sheep %d did not shut down" % index) from None

    def end(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()


def make_image(root):
    """An ext4 file system that holds this project's source and some large files."""
    files = root / "files"
    shutil.copytree(SOURCE / "sheepstack", files / "sheepstack",
                    ignore=shutil.ignore_patterns("__pycache__"))
    noise = random.Random(2009)
    for number in range(3):
        (files / ("noise%d" % number)).write_bytes(noise.randbytes(12 * MIB))
    image = root / "disk.img"
    run("mke2fs", "-q", "-t", "ext4", "-d", files, image, "%dM" % (IMAGE_SIZE // MIB))
    return image.read_bytes()


def overwrite(disk, offset, data):
    return disk[:offset] + data + disk[offset + len(data):]


def digest(data):
    return hashlib.sha256(data).hexdigest()[:16]


def show(cluster, *words):
    print("\n    $ dog %s" % " ".join(words))
    for line in cluster.dog(*words).decode().splitlines():
        print("    " + line)


def demonstrate(root, keep):
    cluster = Cluster(root, free_ports(3))
    keeping = False
    try:
        cluster.start()
        say("Started three sheep on ports %s: one storage cluster, no server besides them."
            % ", ".join(map(str, cluster.ports)))
        cluster.dog("cluster", "format", "-c", "2")
        say("Formatted it: every object will have two copies, on two different sheep.")

        image = make_image(root)
        cluster.dog("vdi", "create", "alice", IMAGE_SIZE)
        cluster.dog("vdi", "write", "alice", data=image)
        say("Wrote a real ext4 file system (%d MiB, sha256 %s...) into the virtual disk alice."
            % (IMAGE_SIZE // MIB, digest(image)))

        cluster.dog("vdi", "snapshot", "-s", "before", "alice")
        cluster.dog("vdi", "clone", "-s", "before", "alice", "bob")
        say("Took the snapshot 'before' of alice and cloned it to bob: no data was copied.")

        change = random.Random(42).randbytes(6 * MIB)
        clone = overwrite(image, 33 * MIB, change)
        cluster.dog("vdi", "write", "bob", 33 * MIB, len(change), data=change)
        now = overwrite(image, 5 * MIB + 512, change[:100000])
        cluster.dog("vdi", "write", "alice", 5 * MIB + 512, 100000, data=change[:100000])
        say("Wrote to bob and to alice: from here on the three differ.")

        victim = 2
        cluster.kill(victim)
        say("Killed the sheep on port %d with SIGKILL: a node is dead." % cluster.ports[victim])
        wait_for("the dead sheep to leave the cluster", lambda: len(cluster.nodes()) == 2)
        say("The others noticed, and serve on without it.")
        wait_for("two copies of every object",
                 lambda: not cluster.recovering() and not cluster.lacking_copies())
        say("Recovery is done: all %d objects have two copies again, on the two that live."
            % len(cluster.objects(0)))

        for name, words, expected in (
                ("alice", ("alice",), now),
                ("the snapshot 'before' of alice", ("-s", "before", "alice"), image),
                ("bob", ("bob",), clone)):
            found = cluster.dog("vdi", "read", *words)
            if found != expected:
                raise DemoFailed("%s does not read back as it was written: %s" % (
                    name, difference(found, expected)))
            say("Read %s back: all %d bytes are right." % (name, len(found)))
        restored = root / "restored.img"
        restored.write_bytes(cluster.dog("vdi", "read", "-s", "before", "alice"))
        run("e2fsck", "-f", "-n", restored)
        say("e2fsck finds nothing wrong in the file system of the snapshot.")
        restored.unlink()

        show(cluster, "vdi", "list")
        show(cluster, "node", "list")
        show(cluster, "cluster", "info")
        print()
        if keep:
            keeping = True
            say_how_to_use(cluster, victim)
        else:
            cluster.shut_down()
            say("Shut the cluster down. All is well.")
    except DemoFailed:
        keeping = False
        raise
    finally:
        if not keeping:
            cluster.end()


def difference(found, expected):
    if len(found) != len(expected):
        return "%d bytes instead of %d" % (len(found), len(expected))
    at = next(i for i, (a, b) in enumerate(zip(found, expected)) if a != b)
    return "the first wrong byte is at offset %d" % at


def say_how_to_use(cluster, victim):
    dog = os.path.relpath(BIN / "dog")
    port = cluster.ports[0]
    print("The cluster keeps running, in %s. Try it, for example:\n" % cluster.root)
    for words in ("vdi list", "vdi tree", "vdi create mine 1G",
                  "vdi read -s before alice > disk.img", "node stat"):
        head, redirect, target = words.partition(" >")
        print("    %s %s -p %d%s%s" % (dog, head, port, redirect, target))
    print("\nStart the sheep that was killed again; it joins and takes its share:\n")
    print("    " + " ".join(word for word in cluster.argv(victim) if word != "-f"))
    print("\nStop all of it, and remove what it stored:\n")
    print("    %s cluster shutdown -p %d" % (dog, port))
    print("    rm -r %s" % cluster.root)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="leave the cluster running")
    keep = parser.parse_args().keep
    root = pathlib.Path(tempfile.mkdtemp(prefix="sheepstack-demo."))
    try:
        demonstrate(root, keep)
    except DemoFailed as error:
        print("\nThe demo failed: %s\nThe sheep's directories and logs are in %s." % (
            error, root), file=sys.stderr)
        return 1
    except BaseException:
        print("\nThe sheep's directories and logs are in %s." % root, file=sys.stderr)
        raise
    if not keep:
        shutil.rmtree(root)
    return 0


STARTED = time.monotonic()

if __name__ == "__main__":
    sys.exit(main())
