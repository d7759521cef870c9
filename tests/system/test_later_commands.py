"""What this server has of Redis 7.2 (redis-server 7.0, the oracle of other tests, does not know it)."""
import time

import pytest
import redis


def test_client_no_touch(servers):
    node = servers.node("covey")
    client = redis.Redis(port=node.port)
    client.set("k", 1)
    time.sleep(2.1)
    assert client.execute_command("CLIENT", "NO-TOUCH", "ON") == b"OK"
    client.get("k"), client.strlen("k")
    pipe = client.pipeline()
    pipe.get("k")
    pipe.execute()
    client.eval("return redis.call('get', KEYS[1])", 1, "k")
    assert client.object("idletime", "k") >= 2
    assert "T" in next(c for c in client.client_list() if c["id"] == str(client.client_id()))["flags"]
    client.touch("k")
    assert client.object("idletime", "k") < 2
    assert client.execute_command("CLIENT", "NO-TOUCH", "OFF") == b"OK"
    with pytest.raises(redis.ResponseError, match="syntax error"):
        client.execute_command("CLIENT", "NO-TOUCH", "MAYBE")


def test_client_setinfo(servers):
    client = redis.Redis(port=servers.node("covey").port)
    assert client.execute_command("CLIENT", "SETINFO", "LIB-NAME", "redis-py(app)") == b"OK"
    assert client.execute_command("CLIENT", "SETINFO", "lib-ver", "4.3.4") == b"OK"
    mine = next(c for c in client.client_list() if c["id"] == str(client.client_id()))
    assert (mine["lib-name"], mine["lib-ver"]) == ("redis-py(app)", "4.3.4")
    for name, value, text in [("lib-name", "a b", "lib-name cannot contain spaces, newlines or special characters."),
                              ("lib-ver", "1\n", "lib-ver cannot contain spaces, newlines or special characters."),
                              ("lib-x", "1", "Unrecognized option 'lib-x'")]:
        with pytest.raises(redis.ResponseError) as caught:
            client.execute_command("CLIENT", "SETINFO", name, value)
        assert str(caught.value) == text
    client.execute_command("CLIENT", "SETINFO", "LIB-NAME", "")
    assert "lib-name" not in next(c for c in client.client_list() if c["id"] == str(client.client_id()))


def test_rank_with_score(servers):
    client = redis.Redis(port=servers.node("covey").port)
    client.response_callbacks.clear()
    client.zadd("z", {"a": 1, "b": 2.5, "c": 3})
    assert client.execute_command("ZRANK", "z", "b", "WITHSCORE") == [1, b"2.5"]
    assert client.execute_command("ZREVRANK", "z", "a", "WITHSCORE") == [2, b"1"]
    assert client.execute_command("ZRANK", "z", "none", "WITHSCORE") is None
    with pytest.raises(redis.ResponseError, match="wrong number of arguments for 'zrank' command"):  # as 7.0 says
        client.execute_command("ZRANK", "z", "b", "SCORES")
