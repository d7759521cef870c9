"""Generators: users and their rights, of users nobody is logged in as.  test_acl.py goes deeper: rules and what they allow."""

from registry import command, simple

FAMILY = "users"
USERS = [b"ann", b"bob", b"ann", b"eve\xff"]
RULES = [b"on", b"off", b"nopass", b">secret", b"<secret", b"<never", b"resetpass", b"~*", b"~a*", b"%R~r*", b"%W~w*", b"%X~x",
         b"resetkeys", b"allkeys", b"&*", b"&c*", b"resetchannels", b"+@all", b"-@all", b"+get", b"-set", b"+config|get", b"+@read",
         b"-@write", b"+nosuch", b"+@nosuch", b"reset", b"(+get ~k)", b"(+set", b"clearselectors", b"+select|0", b"nonsense",
         b"#" + b"0" * 64, b"#00", b"sanitize-payload", b"allcommands", b"nocommands", b""]  # fmt: skip


def user(d):
    return d.pick(USERS) if not d.chance(10) else d.pick([b"nosuch", b"", b"with space"])


@command("ACL|SETUSER", 10, mutate=False, family=FAMILY)
def _setuser(d):
    return [b"ACL", d.option(b"SETUSER"), user(d)] + [d.pick(RULES) for _ in range(d.n(6))]


command("ACL|GETUSER", 6, family=FAMILY)(lambda d: [b"ACL", b"GETUSER", user(d)])
command("ACL|DELUSER", 3, mutate=False, family=FAMILY)(
    lambda d: [b"ACL", b"DELUSER"] + [user(d) if not d.chance(10) else b"default" for _ in range(1 + d.n(2))])  # fmt: skip
simple("ACL|LIST", "", 3, family=FAMILY)
simple("ACL|USERS", "", 3, family=FAMILY)
simple("ACL|WHOAMI", "", 2, family=FAMILY)
simple("ACL|LOAD", "", 1, family=FAMILY)
simple("ACL|SAVE", "", 1, family=FAMILY)
command("ACL|CAT", 3, family=FAMILY)(
    lambda d: [b"ACL", b"CAT"] + ([d.pick([b"read", b"GEO", b"nosuch", b"scripting", b"all"])] if d.chance(80) else []))  # fmt: skip
command("ACL|GENPASS", 2, family=FAMILY)(
    lambda d: [b"ACL", b"GENPASS"] + ([d.pick([b"1", b"5", b"256", b"4096", b"0", b"4097", b"x"])] if d.chance(70) else []))  # fmt: skip
command("ACL|LOG", 2, family=FAMILY)(lambda d: [b"ACL", b"LOG"] + d.pick([[], [b"RESET"], [b"5"], [b"-1"], [b"x"]]))


@command("ACL|DRYRUN", 6, family=FAMILY)
def _dryrun(d):
    call = d.pick([[b"GET", d.any_key()], [b"SET", d.any_key(), b"v"], [b"CONFIG", b"GET", b"x"], [b"nosuch"], [b"GET"],
                   [b"PUBLISH", b"c1", b"x"], [b"SELECT", b"0"], [b"SORT", d.any_key(), b"BY", b"w*"], [b"PING"]])  # fmt: skip
    return [b"ACL", b"DRYRUN", b"default" if d.chance(30) else user(d)] + call  # who is always there
