"""A model that tries to leave the machine while it trains, for the worker processes to import.

It speaks only to addresses that documentation is written with and nobody has: 192.0.2.1 and a name under `.invalid`.
"""

import socket
import subprocess
import sys
from urllib.request import urlopen

from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.pipeline import Pipeline

CONNECT = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"


def leaky_pipeline(values, task, seed, n_rows):
    return Pipeline([("model", Leaky())])


class Leaky(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        raise RuntimeError(" ".join(f"{attempt.__name__}={how(attempt)}" for attempt in ATTEMPTS))


def how(attempt):
    """What stopped an attempt: the class of the error at its root."""
    try:
        attempt()
    except (OSError, RuntimeError) as error:
        root = getattr(error, "reason", error)  # urllib wraps it
        return type(root).__name__
    return "nothing"


def url():
    urlopen("http://192.0.2.1/", timeout=1).close()


def connection():
    socket.create_connection(("192.0.2.1", 80), timeout=1).close()


def datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"", ("192.0.2.1", 9))


def lookup():
    socket.getaddrinfo("offline-tune.invalid", 80)


def program():
    done = subprocess.run([sys.executable, "-I", "-c", CONNECT], capture_output=True, text=True)
    raise OSError(done.stderr) if "unreachable" in done.stderr else RuntimeError(done.stderr)


ATTEMPTS = (url, connection, datagram, lookup, program)
