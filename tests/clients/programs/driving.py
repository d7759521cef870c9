"""What the drivers of the Python programs share: they work until a line arrives on standard input, then print one line of JSON."""
import json
import sys
import threading
import time

UNKNOWN = ("may or may not have been executed", "Connection closed by server")


class Result:
    def __init__(self):
        self.done, self.unknown, self.missed, self.errors, self.wrong, self.longest = 0, 0, 0, [], [], 0
        self.stopped = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        sys.stdin.readline()
        self.stopped.set()

    def failed(self, error):
        if any(text in str(error) for text in UNKNOWN):
            self.unknown += 1
            print(f"unknown: {error!r}", file=sys.stderr)
        elif len(self.errors) < 50:
            self.errors.append(repr(error)[:300])

    def flows(self, began):
        self.done += 1
        self.longest = max(self.longest, round(1000 * (time.monotonic() - began)))
        if self.done == 5:
            print("ready", flush=True)

    def end(self):
        print(json.dumps({"done": self.done, "unknown": self.unknown, "missed": self.missed, "errors": self.errors, "wrong": self.wrong, "longest": self.longest}))
