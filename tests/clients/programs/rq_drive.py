"""Sends jobs to the RQ worker and waits for their results: PROXY_PORT, PROXY_PREFIX."""
import operator
import sys
import time

import redis
from rq import Queue

import rq_settings
from driving import Result

result = Result()
queue = Queue(connection=redis.Redis.from_url(rq_settings.REDIS_URL))
n = 0
while not result.stopped.is_set():
    n += 1
    began = time.monotonic()
    try:
        job = queue.enqueue(operator.add, n, n)
        while job.result is None and job.get_status(refresh=True) != "failed" and time.monotonic() < began + 20:
            time.sleep(0.02)
        if job.get_status() == "failed":  # its process lost a connection
            result.unknown += 1
            print(f"job {n} failed: {job.exc_info}", file=sys.stderr)
            continue
        if job.result is None and job.get_status() in ("queued", "started"):  # it had been taken by a worker that ended
            result.missed += 1
            continue
        if job.result != 2 * n:
            result.wrong.append(f"{n}: {job.result} ({job.get_status()})")
        result.flows(began)
    except Exception as error:  # every kind is to be counted
        result.failed(error)
result.end()
