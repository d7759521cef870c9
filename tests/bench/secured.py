"""Throughput over TLS: the same certificate, redis-benchmark --tls."""
import os
import shutil
import subprocess
import tempfile
from statistics import median

from figures import OPERATIONS, run_benchmark
from target import KINDS, Failure, Server, free_port


def certificate(directory):
    """A key and a certificate that signs itself; RSA 2048, as most have."""
    paths = [os.path.join(directory, name) for name in ("key", "certificate")]
    done = subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", paths[0], "-out", paths[1], "-days", "2",
                           "-subj", "/CN=bench"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Failure(f"openssl: {done.stderr.strip()[-200:]}")
    return paths


def figures(size, say, workers):
    """GET and SET of 64-byte values over TLS; the kinds take turns, and the medians count."""
    directory = tempfile.mkdtemp(prefix="covey-bench-tls-")
    servers, ports = {}, {}
    try:
        key, cert = certificate(directory)
        for kind in KINDS:
            ports[kind] = free_port()
            extra = ["--workers", workers] if workers and kind == "covey" else []
            servers[kind] = Server(kind, "--tls-port", ports[kind], "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file",
                                   cert, *extra)
            servers[kind].fill(size.keys, [b"x" * 64])
        options = ["--tls", "--cacert", cert, "--cert", cert, "--key", key]
        for pipeline in (1, 16):
            for operation in OPERATIONS:
                say(f"TLS {operation} P={pipeline}")
                results = {kind: [] for kind in KINDS}
                for turn in range(size.turns):
                    for kind in KINDS if turn % 2 == 0 else KINDS[::-1]:
                        results[kind].append(run_benchmark(servers[kind], operation, pipeline, size.requests[pipeline] // 2, size.keys,
                                                           ports[kind], options))
                middle = {kind: {name: median(r[name] for r in results[kind]) for name in results[kind][0]} for kind in KINDS}
                for name, text, form, less in (("rate", "operations/s", "{:,.0f}", False), ("p99", "p99 ms", "{:.3f}", True),
                                               ("cpu", "CPU us/operation", "{:.2f}", True)):
                    yield f"TLS {operation} P={pipeline} {text}", middle["covey"][name], middle["redis"][name], form, less
    finally:
        for server in servers.values():
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)
