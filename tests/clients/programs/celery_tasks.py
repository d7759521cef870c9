"""The application of the Celery worker and of celery_drive.py: settings from the environment."""
import os

from celery import Celery

port, prefix = os.environ["PROXY_PORT"], os.environ.get("PROXY_PREFIX", "")
app = Celery("tasks", broker=f"redis://127.0.0.1:{port}/0", backend=f"redis://127.0.0.1:{port}/0")
app.conf.update(worker_prefetch_multiplier=4, broker_connection_retry=True, result_expires=600, task_ignore_result=False)
if prefix:
    app.conf.update(broker_transport_options={"global_keyprefix": prefix}, result_backend_transport_options={"global_keyprefix": prefix})


@app.task
def add(one, two):
    return one + two


@app.task
def total(numbers):
    return sum(numbers)
