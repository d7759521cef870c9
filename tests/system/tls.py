"""Certificates for the tests, made with openssl(1) in a temporary folder."""
import os
import ssl

from covey import run


class Authority:
    """An authority with a certificate of its own for servers and one for clients; `directives` are for nodes of both kinds,
    client_options for redis-py, cli_options for redis-cli."""

    def __init__(self, directory):
        self.dir = directory
        os.makedirs(directory, exist_ok=True)
        run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", self.path("ca.key"), "-out",
             self.path("ca.crt"), "-days", 30, "-subj", "/CN=test authority"])
        self.make("server")
        self.make("client")
        self.directives = {"tls_cert_file": self.path("server.crt"), "tls_key_file": self.path("server.key"),
                           "tls_ca_cert_file": self.path("ca.crt")}
        self.client_options = {"ssl": True, "ssl_certfile": self.path("client.crt"), "ssl_keyfile": self.path("client.key"),
                               "ssl_ca_certs": self.path("ca.crt"), "ssl_check_hostname": False}
        self.cli_options = ["--tls", "--cert", self.path("client.crt"), "--key", self.path("client.key"), "--cacert",
                            self.path("ca.crt")]

    def path(self, name):
        return os.path.join(self.dir, name)

    def make(self, name, common_name=None, password=None):
        """NAME.crt and NAME.key, signed by this authority."""
        run(["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", self.path(name + ".key"), "-out",
             self.path(name + ".csr"), "-subj", f"/CN={common_name or name}"])
        run(["openssl", "x509", "-req", "-in", self.path(name + ".csr"), "-CA", self.path("ca.crt"), "-CAkey",
             self.path("ca.key"), "-CAcreateserial", "-out", self.path(name + ".crt"), "-days", 30])
        if password:
            run(["openssl", "rsa", "-aes128", "-passout", f"pass:{password}", "-in", self.path(name + ".key"), "-out",
                 self.path(name + ".locked.key")])

    def context(self, certificate="client"):
        context = ssl.create_default_context(cafile=self.path("ca.crt"))
        context.check_hostname = False
        if certificate:
            context.load_cert_chain(self.path(certificate + ".crt"), self.path(certificate + ".key"))
        return context


def common_name(tls_socket):
    """Of the certificate that the other side showed."""
    return dict(pair[0] for pair in tls_socket.getpeercert()["subject"])["commonName"]
