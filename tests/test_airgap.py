"""The guard is tried in processes of its own: neither a hook nor a namespace can be left again."""

import ast
import errno
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_tune import airgap
from offline_tune.airgap import switches
from offline_tune.airgap.hook import is_local

ROOT = Path(__file__).parents[1]
INSIDE = "from offline_tune import airgap\nentered = airgap.enter_empty_namespace()\nairgap.engage()\n"
HOOK_ALONE = "from offline_tune import airgap\nairgap.engage()\n"
BARRIERS = [pytest.param(INSIDE, id="namespace"), pytest.param(HOOK_ALONE, id="hook alone")]


def run_python(code, **environment):
    """The value that the last line of the code prints, from a fresh interpreter."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    return ast.literal_eval(finished.stdout.splitlines()[-1])


def refusal(code):
    """The message of the NetworkRefused that the code ends in, with the hook alone."""
    return run_python(
        HOOK_ALONE
        + "import socket\ntry:\n    "
        + code
        + "\nexcept airgap.NetworkRefused as error: print(repr(str(error)))"
    )


def run_in_user_namespace(preparation, code):
    """What the code prints, run as the root of a user namespace after a shell command that prepares it."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "--net", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*unshare, preparation], capture_output=True).returncode:
        pytest.skip("this system allows no user namespace, or not this in it: " + preparation)
    python = f"{preparation} && exec '{sys.executable}' -c \"$CODE\""
    finished = subprocess.run(
        [*unshare, python], cwd=ROOT, env=os.environ | {"CODE": code}, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    return ast.literal_eval(finished.stdout)


@pytest.fixture(scope="module")
def has_namespace():
    if not run_python(INSIDE + "print(entered)"):
        pytest.skip("this system allows no network namespace")


def test_the_hook_alone_refuses_url_connection_datagram_and_lookup():
    tried = run_python(
        HOOK_ALONE + "print([(p.name, p.refused, p.by) for p in airgap.probe('urllib', 'connect', 'send', 'lookup')])"
    )
    assert tried == [(name, True, "audit hook") for name in ("urllib", "connect", "send", "lookup")]


def test_nothing_leaves_from_inside_the_namespace(has_namespace):
    tried = run_python(INSIDE + "print([(p.name, p.refused, p.by) for p in airgap.probe()])")
    assert all(refused for _, refused, _ in tried)
    assert tried[-1] == ("subprocess", True, "network namespace")


def test_the_namespace_alone_refuses_everything(has_namespace):
    tried = run_python(
        "from offline_tune import airgap\nairgap.enter_empty_namespace()\n"
        "print({(p.refused, p.by) for p in airgap.probe()})"
    )
    assert tried == {(True, "network namespace")}


def test_an_unknown_probe_is_a_key_error():
    with pytest.raises(KeyError, match="smoke signal"):
        airgap.probe("smoke signal")


@pytest.mark.parametrize("barrier", BARRIERS)
def test_the_loopback_works_by_number_and_by_name(barrier):
    hosts = run_python(
        barrier + "import socket\nseen = []\n"
        "for host in ('127.0.0.1', 'localhost'):\n"
        "    with socket.create_server((host, 0)) as server, socket.create_connection(server.getsockname()[:2]) as c:\n"
        "        seen.append(c.getpeername()[0])\nprint(seen)"
    )
    assert hosts == ["127.0.0.1", "127.0.0.1"]


@pytest.mark.parametrize("barrier", BARRIERS)
def test_an_event_loop_and_its_servers_work(barrier):
    answer = run_python(
        barrier + "import asyncio\nasync def main():\n"
        "    async def serve(reader, writer): writer.write(await reader.readline()); writer.close()\n"
        "    async with await asyncio.start_server(serve, '127.0.0.1') as server:\n"
        "        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())\n"
        "        writer.write(b'hello\\n'); line = await reader.readline(); writer.close(); return line\n"
        "print(asyncio.run(main()))"
    )
    assert answer == b"hello\n"


def test_unix_sockets_and_datagrams_among_them_work(tmp_path):
    path = str(tmp_path / "s")
    received = run_python(
        HOOK_ALONE + "import socket\nreceiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        f"receiver.bind({path!r})\nsender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        f"sender.sendto(b'one', {path!r}); sender.connect({path!r}); sender.sendmsg((b'two', b'three'))\n"
        "print([receiver.recv(9), receiver.recv(9)])"
    )
    assert received == [b"one", b"twothree"]


@pytest.mark.parametrize(
    "code",
    [
        "socket.socket().connect(('offline-tune.invalid', 80))",
        "socket.socket().connect_ex(('offline-tune.invalid', 80))",
        "socket.socket().bind(('offline-tune.invalid', 80))",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('offline-tune.invalid', 9))",
        "socket.socket(type=socket.SOCK_DGRAM).sendmsg([b''], [], 0, ('offline-tune.invalid', 9))",
    ],
)
def test_a_host_name_is_refused_before_a_name_server_is_asked(code):
    assert "got ('offline-tune.invalid', " in refusal(code)


@pytest.mark.parametrize(
    "code",
    [
        "socket.gethostbyname('offline-tune.invalid')",
        "socket.gethostbyname_ex('offline-tune.invalid')",
        "socket.getfqdn('x'); socket.gethostbyaddr('192.0.2.1')",
        "socket.getnameinfo(('192.0.2.1', 80), 0)",
        "socket.getaddrinfo(b'offline-tune.invalid', None)",
        "socket.socket().bind(('0.0.0.0', 0))",
        "socket.getaddrinfo('', 80)",
        "socket.socket().connect(('127.0.0.53', 53))",
        "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))",
        "import webbrowser; webbrowser.GenericBrowser('true').open('http://offline-tune.invalid')",
        "from urllib.request import urlopen; urlopen('ftp://offline-tune.invalid/x')",
        "import http.client; http.client.HTTPConnection('offline-tune.invalid').request('GET', '/')",
    ],
)
def test_every_other_way_out_of_python_is_refused(code):
    assert refusal(code).startswith("only this machine may be reached, got ")


def test_a_hostile_host_makes_one_short_line():
    message = refusal(r"socket.getaddrinfo('{}\n.' * 10_000, 80)")
    assert "\n" not in message and len(message) < 200
    assert message.endswith("(socket.getaddrinfo); use a local file or 127.0.0.1")


def test_a_refusal_survives_the_way_out_of_a_worker():
    refused = airgap.NetworkRefused(errno.EPERM, "only this machine")
    copied = pickle.loads(pickle.dumps(refused))
    assert (str(copied), copied.errno, type(copied)) == ("only this machine", errno.EPERM, airgap.NetworkRefused)


def test_a_server_open_to_others_is_refused_with_the_reason():
    code = (
        "\nimport socket\ntry: socket.create_server(('', 0))\nexcept PermissionError as error: print(repr(str(error)))"
    )
    assert "only this machine may be reached, got ('', 0) (socket.bind)" in run_python(HOOK_ALONE + code)


def test_a_file_url_stays_readable(tmp_path):
    (tmp_path / "x.csv").write_text("a,b")
    url = (tmp_path / "x.csv").as_uri()
    assert (
        run_python(HOOK_ALONE + f"from urllib.request import urlopen\nprint(repr(urlopen({url!r}).read()))") == b"a,b"
    )


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1", "localhost", "LOCALHOST", b"::1"]
)
def test_loopback_is_local(host):
    assert is_local(host)


@pytest.mark.parametrize(
    "host",
    ["", "0.0.0.0", "::", "127.1", "2130706433", "127.0.0.1.", "127.0.0.1 ", "localhost.example", "<broadcast>", None,
     1, "::ffff:192.0.2.1", "::127.0.0.1", "169.254.169.254", "fe80::1%lo", b"\xff", "\uff11\uff12\uff17.0.0.1"],
)  # fmt: skip
def test_anything_else_is_not_local(host):
    assert not is_local(host)


@given(st.ip_addresses(v=4))
def test_of_the_numeric_addresses_only_127_is_local(address):
    assert is_local(str(address)) == (address.packed[0] == 127)


def test_engaging_twice_is_engaging_once():
    assert run_python(
        HOOK_ALONE + "import socket\nonce = socket.socket.connect\n"
        "print(airgap.engage().audit_hook and socket.socket.connect is once)"
    )


def test_entering_twice_is_entering_once(has_namespace):
    assert run_python(
        INSIDE + "import os\nonce = os.readlink('/proc/self/ns/net')\n"
        "print(airgap.enter_empty_namespace() and os.readlink('/proc/self/ns/net') == once)"
    )


def test_the_status_tells_what_holds(has_namespace):
    code = "s = airgap.status(); print((s.audit_hook, s.namespace, s.namespace_missing, s.loopback))"
    assert run_python(INSIDE + code) == (True, True, "", True)
    assert run_python(HOOK_ALONE + code) == (True, False, "it was not asked for in this process", True)
    assert run_python("from offline_tune import airgap\n" + code)[:2] == (False, False)


def test_the_namespace_can_be_switched_off():
    code = INSIDE + "print((entered, airgap.status().namespace_missing))"
    expected = (False, "switched off by OFFLINE_TUNE_NAMESPACE=off")
    assert run_python(code, OFFLINE_TUNE_NAMESPACE="off") == expected


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the platform is the obstacle")
def test_a_process_with_threads_stays_where_it_is():
    code = "import threading\nstop = threading.Event()\nthreading.Thread(target=stop.wait).start()\n"
    said = run_python(code + INSIDE + "stop.set()\nprint((entered, airgap.status().namespace_missing))")
    assert said == (False, "it must be entered by a process with one thread, this one has 2")


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces exist on Linux only")
def test_a_system_that_allows_no_namespace_says_so_and_the_hook_holds():
    code = INSIDE + "print((entered, airgap.status().namespace_missing, airgap.probe('connect')[0].by))"
    printed = run_in_user_namespace("echo 0 > /proc/sys/user/max_net_namespaces", code)
    assert printed == (False, "the system's limit on namespaces is reached (see /proc/sys/user)", "audit hook")


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces exist on Linux only")
def test_root_without_the_capability_keeps_its_rights_and_the_hook():
    stripped = "from offline_tune.airgap import namespace\nnamespace._drop_capabilities()\n"
    code = stripped + INSIDE + "print((entered, airgap.status().namespace_missing, airgap.probe('send')[0].by))"
    printed = run_in_user_namespace("true", code)
    assert printed == (False, "root without CAP_SYS_ADMIN would lose its rights to other users' files", "audit hook")


NAME_SERVER = """
import os, socket, subprocess
from offline_tune import airgap

LOOKUP = ["getent", "hosts", "offline-tune.invalid"]
airgap.enter_empty_namespace()

def name_server():
    server = socket.socket(type=socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    return server

with name_server() as server, subprocess.Popen(LOOKUP) as program:
    before = b"offline-tune" in server.recv(512)
    program.kill()

airgap.engage()
with name_server() as server:
    server.setblocking(False)
    subprocess.run(LOOKUP)
    try:
        after = server.recv(512)
    except BlockingIOError:
        after = None
print((before, after))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the switch is glibc's")
def test_a_program_in_c_asks_the_name_server_no_more(tmp_path):
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1")
    bind = f"mount --bind '{tmp_path}/resolv.conf' /etc/resolv.conf"
    assert run_in_user_namespace(bind, NAME_SERVER) == (True, None)


WORKER = """
import multiprocessing, sqlite3, sys
from offline_tune import airgap

def work(path):
    held = airgap.engage()
    with sqlite3.connect(path) as database:
        database.execute("create table if not exists t (x)")
    database.close()
    return held.audit_hook, held.namespace, airgap.probe("subprocess")[0].by

if __name__ == "__main__":
    airgap.enter_empty_namespace()
    airgap.engage()
    context = multiprocessing.get_context("spawn")
    {pool}
"""
SPAWN = """with context.Pool(1) as pool:
        print(pool.apply(work, sys.argv[1:]))"""
PEBBLE = """import pebble
    with pebble.ProcessPool(1, context=context) as pool:
        print(pool.schedule(work, args=sys.argv[1:], timeout=50).result())"""


@pytest.mark.parametrize("pool", [SPAWN, PEBBLE], ids=["multiprocessing", "pebble"])
def test_a_spawned_worker_inherits_the_namespace_and_engages_the_hook(has_namespace, tmp_path, pool):
    (tmp_path / "main.py").write_text(WORKER.replace("{pool}", pool))
    finished = subprocess.run(
        [sys.executable, str(tmp_path / "main.py"), str(tmp_path / "study.db")],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert finished.stdout.strip() == "(True, True, 'network namespace')", finished.stderr
    assert (tmp_path / "study.db").stat().st_uid == os.getuid()


def test_files_keep_their_owner_and_permissions_their_meaning(has_namespace, tmp_path):
    (tmp_path / "old").touch(0o400)
    rights = run_python(
        INSIDE + f"import os; os.chdir({str(tmp_path)!r}); open('new', 'w').close()\n"
        "print((os.stat('old').st_uid, os.stat('new').st_uid, os.getuid(), os.access('old', os.W_OK)))"
    )
    assert rights == (*[os.getuid()] * 3, os.access(tmp_path / "old", os.W_OK))
    assert (tmp_path / "new").stat().st_gid == os.getgid()


def test_the_switches_are_set_and_inherited():
    child = "import os, subprocess, sys\nprint(subprocess.run(['env', '-0'], capture_output=True).stdout)"
    child = run_python(HOOK_ALONE + child, HTTPS_PROXY="http://192.0.2.1:3128", HF_HUB_OFFLINE="0").decode().split("\0")
    environment = dict(line.split("=", 1) for line in child if line)
    assert "HTTPS_PROXY" not in environment
    assert switches.in_force(environment) == switches.OFF


def test_switches_that_somebody_turned_back_are_not_reported_as_in_force():
    environment = {}
    switches.turn_off(environment)
    environment["HF_HUB_OFFLINE"] = "0"
    assert switches.OFF.keys() - switches.in_force(environment) == {"HF_HUB_OFFLINE"}


def test_the_guard_loads_nothing_of_the_package_and_no_vendor():
    code = "import sys\nbefore = set(sys.modules)\nfrom offline_tune import airgap\nprint(set(sys.modules) - before)"
    names = {name for name in run_python(code) if name.partition(".")[0] not in sys.stdlib_module_names}
    assert {name for name in names if not name.startswith("offline_tune.airgap")} == {"offline_tune"}
