"""A running `covey proxy` for the tests."""
import covey
from covey import Node, wait_for


class Proxy(Node):
    """covey proxy in front of these nodes (or addresses); settings as its command line has them, a_b for a-b."""

    def __init__(self, servers, nodes, wait=True, port=None, **settings):
        super().__init__("covey", servers.directory(f"proxy-{len(servers.nodes)}"), port=port)
        seeds = ",".join(node if isinstance(node, str) else node.address for node in nodes)
        self.settings = {"cluster": seeds, "workers": 2, "refresh-period": 1000,
                         **{k.replace("_", "-"): v for k, v in settings.items()}}
        servers.nodes.append(self)
        self.start(wait=wait)
        if not wait:
            wait_for("the proxy to listen", lambda: self.raw().close() is None)

    def command(self):
        covey.server_command("covey")
        words = [covey.COVEY_BIN, "proxy", "--listen", f"127.0.0.1:{self.port}"]
        for name, value in self.settings.items():
            words += [f"--{name}", str(value)]
        return words
