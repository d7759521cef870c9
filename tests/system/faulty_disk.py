"""A disk that fails on demand under a server of the tests: errors, delays, death at a system call, and loss of power.

faulty_disk.c does the work below the system calls; here it is built, started around a node, and asked."""
import collections
import contextlib
import os
import shutil
import socket
import subprocess

import covey

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "faulty_disk.c")
_built = {}


def program():
    """The program, built once a run."""
    if "path" not in _built:
        target = os.path.join(covey.ROOT, "build", "faulty_disk")
        os.makedirs(os.path.dirname(target), exist_ok=True)
        subprocess.run(["gcc", "-O1", "-Wall", "-Werror", "-pthread", "-o", f"{target}.{os.getpid()}", SOURCE], check=True,
                       timeout=60)
        os.replace(f"{target}.{os.getpid()}", target)
        _built["path"] = target
    return _built["path"]


class Disk:
    """The disk under a node that is not running yet.  It stays when the node is started again."""

    def __init__(self, servers, node):
        self.node = node
        self.shadow = os.path.join(servers.base, f"shadow-{node.port}")
        self.control = os.path.join(servers.base, f"control-{node.port}")
        self.asking = None
        self.at_start = {}
        self.watched = os.path.realpath(node.dir)
        servers.undo.append(self.close)
        self.prepare()

    def prepare(self, *commands):
        """Before each start: new books.  The commands are obeyed before the program begins."""
        shutil.rmtree(self.shadow, ignore_errors=True)
        os.makedirs(self.shadow)
        self.at_start = {os.stat(path).st_ino: os.path.getsize(path) for path in self.files()}
        self.node.prefix = [program(), self.control, self.shadow, self.watched, *(f"--do={c}" for c in commands)]

    def files(self):
        for directory, _, names in os.walk(self.watched):
            for name in names:
                if (directory, name) != (self.watched, "log"):
                    yield os.path.join(directory, name)

    def __call__(self, *words):
        """Gives a command to the running one."""
        if not self.asking:
            self.asking = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.asking.bind("")  # a name that the kernel chooses
            self.asking.settimeout(5)
        self.asking.sendto(" ".join(str(w) for w in words).encode(), self.control)
        answer = self.asking.recv(512).decode()
        assert answer != "what?", words
        return answer

    def die(self):
        """SIGKILL, now; no answer comes."""
        if self.node.alive():
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
                asking.sendto(b"die", self.control)
        self.node.process.wait(10)

    def calls(self):
        words = self("count").split()
        return {words[i]: int(words[i + 1]) for i in range(0, len(words), 2)}

    def close(self):
        if self.asking:
            self.asking.close()
            self.asking = None

    # ---- loss of power

    def lose_power(self, chance, worst=False):
        """After the process's death: takes back what was not synced, as far as chance has it.  Creations, renamings and deletions
        are lost from some moment on, unless their directory was synced; files are cut somewhere behind what was synced
        of them; worst: all of that.  Returns how many operations and bytes that were."""
        synced, operations = {}, []
        with open(os.path.join(self.shadow, "journal")) as file:
            for line in file:
                words = line.split()
                if words[0] == "file":
                    synced[int(words[1])] = int(words[2])
                else:
                    operations.append(words[1:])
        kept = chance.randint(0, len(operations)) if chance.random() < 0.5 and not worst else 0
        lost = collections.Counter()
        for number in range(len(operations) - 1, kept - 1, -1):
            durable, kind, path, saved, path2 = operations[number]
            if durable == "0":
                self._undo(kind, path, saved, path2)
                lost["operations"] += 1
        for path in self.files():
            stat = os.stat(path)
            low = min(stat.st_size, max(synced.get(stat.st_ino, 0), self.at_start.get(stat.st_ino, 0)))
            size = low if worst or chance.random() < 0.5 else chance.randint(low, stat.st_size)
            if size < stat.st_size:
                lost["bytes"] += stat.st_size - size
                os.truncate(path, size)
        return lost

    @staticmethod
    def _undo(kind, path, saved, path2):
        if kind == "create":
            if os.path.exists(path):
                os.unlink(path)
        elif kind == "mkdir":
            shutil.rmtree(path, ignore_errors=True)
        elif kind == "unlink":
            if saved != "-":
                os.link(saved, path)
        elif os.path.exists(path2):
            os.rename(path2, path)
            if saved != "-":
                os.link(saved, path2)
