"""Registers the marker; what the tests need is in the modules beside this one."""


def pytest_configure(config):
    config.addinivalue_line("markers", "sanitizer: also run on the AddressSanitizer and ThreadSanitizer builds")
