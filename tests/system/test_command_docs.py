"""COMMAND DOCS against redis-server's: what a command takes is an interface, summaries are not."""
import redis


def pairs(flat):
    """A map as RESP2 has it."""
    return dict(zip(flat[::2], flat[1::2]))


def described(client):
    """name -> list of arguments, subcommands under "container|name"."""
    client.response_callbacks.clear()
    found = {}

    def walk(name, fields):
        found[name] = fields.get("arguments", [])
        for sub, more in pairs(fields.get("subcommands", [])).items():
            walk(sub, pairs(more))

    for name, fields in pairs(client.execute_command("COMMAND", "DOCS")).items():
        walk(name, pairs(fields))
    return found


# What this server has of later versions: these differ on purpose.
LATER = {"zrank", "zrevrank"}


def test_arguments_are_those_of_redis_server(servers):
    ours, theirs = (described(redis.Redis(port=servers.node(kind).port, decode_responses=True)) for kind in ("covey", "redis"))
    assert len(theirs) > 350
    for name, arguments in theirs.items():
        if name not in LATER:
            assert ours.get(name) == arguments, name
