"""Sends tasks to the Celery worker and waits for their results: PROXY_PORT, PROXY_PREFIX."""
import os
import time

from celery import chord
from celery.exceptions import TimeoutError

from celery_tasks import add, total
from driving import Result

result = Result()
n = 0
while not result.stopped.is_set():
    n += 1
    began = time.monotonic()
    try:
        # The keys of a chord are in one transaction; before Celery 5.3 the prefix is not put in front of those of results.
        if n % 10 == 0 and not os.environ.get("PROXY_PREFIX"):
            waits, want = chord([add.s(i, n) for i in range(3)])(total.s()), 3 + 3 * n
        else:
            waits, want = add.apply_async((n, n), retry=False), 2 * n
        for seconds in (5, 15):  # the worker may have to begin yet, and be slow about it
            try:
                got = waits.get(timeout=seconds, interval=0.05)
                break
            except TimeoutError:
                if waits.status == "SUCCESS":
                    got = waits.result  # a message that was published while the subscriber had no node is not heard
                    result.missed += 1
                    break
        else:  # taken from the queue, by a reply that was lost
            result.unknown += 1
            continue
        if got != want:
            result.wrong.append(f"{n}: {got}")
        result.flows(began)
    except Exception as error:  # every kind is to be counted
        result.failed(error)
result.end()
