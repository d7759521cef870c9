"""Settings of an RQ application (rq worker -c rq_settings): the names of its keys get PROXY_PREFIX in front."""
import importlib
import os
import pkgutil
import sys

import rq

PREFIX = os.environ.get("PROXY_PREFIX", "")
REDIS_URL = f"redis://127.0.0.1:{os.environ['PROXY_PORT']}/0"


def rename():
    """RQ says in attributes of its modules and classes what its keys are called."""
    for found in pkgutil.iter_modules(rq.__path__, "rq."):
        if found.name not in ("rq.cli", "rq.contrib"):
            importlib.import_module(found.name)
    rq.results.get_key = lambda job_id: f"{PREFIX}rq:results:{job_id}"
    rq.results.Result.get_key = classmethod(lambda cls, job_id: f"{PREFIX}rq:results:{job_id}")
    modules = [module for name, module in sys.modules.items() if name.startswith("rq.")]
    classes = {thing for module in modules for thing in vars(module).values() if isinstance(thing, type) and thing.__module__.startswith("rq.")}
    for owner in [*modules, *classes]:
        for name, value in list(vars(owner).items()):
            if isinstance(value, str) and value.startswith("rq:"):
                is_template = "{0}" in value
                setattr(owner, name, (PREFIX.replace("{", "{{").replace("}", "}}") if is_template else PREFIX) + value)


if PREFIX:
    rename()
