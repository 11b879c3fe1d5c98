"""Stock clients over TLS: redis-cli, redis-py, node-redis and ioredis, with and without a certificate of
their own, against a server whose certificates are made by openssl as docs/operations.md describes; a
renewed certificate is used after SIGHUP, and by itself.

    check_tls.py PATH

PATH is the server's binary. Only node's part, check_tls.mjs, is not in this file.
"""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis

from running import RunningServer

HERE = Path(__file__).parent
PATIENCE_SECONDS = 30


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def make_authority(folder: Path) -> None:
    openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/CN=ours")


def make_certificate(folder: Path, name: str, common_name: str) -> None:
    openssl(folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={common_name}",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "90", "-copy_extensions", "copy", "-out", f"{name}.crt")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def check_redis_cli(folder: Path, port: int) -> None:
    base = ["redis-cli", "-h", "127.0.0.1", "-p", str(port), "--tls", "--cacert", str(folder / "ca.crt")]
    own = ["--cert", str(folder / "client.crt"), "--key", str(folder / "client.key")]

    def ask(*words: str) -> str:
        return subprocess.run([*base, *words], capture_output=True, text=True, check=True).stdout.strip()

    equal(ask("PING"), "PONG")
    equal(ask(*own, "PING"), "PONG")
    equal(ask("TL.APPEND", "messages:cli", "x" * 100_000), "1")
    equal(len(ask("ECHO", "y" * 100_000)), 100_000)
    plain = subprocess.run(["redis-cli", "-h", "127.0.0.1", "-p", str(port), "PING"],
                           capture_output=True, text=True)
    assert "PONG" not in plain.stdout, "the port for TLS does not speak without it"
    print("ok redis-cli over TLS")


def check_redis_py(folder: Path, port: int) -> None:
    own = {"ssl_certfile": str(folder / "client.crt"), "ssl_keyfile": str(folder / "client.key")}
    for oldest in [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]:
        for extra in [{}, own]:
            client = redis.Redis("localhost", port, ssl=True, ssl_ca_certs=str(folder / "ca.crt"),
                                 ssl_min_version=oldest, **extra)
            body = bytes(range(256)) * 4096
            sequence = client.execute_command("TL.APPEND", "messages:py", body)
            equal(client.execute_command("TL.GET", "messages:py", sequence)[2], body)
            pipeline = client.pipeline(transaction=False)
            for number in range(1000):
                pipeline.execute_command("TL.APPEND", "messages:pipe", str(number))
            equal(len(pipeline.execute()), 1000)
            subscriber = client.pubsub()
            subscriber.subscribe("messages:py")
            equal(subscriber.get_message(timeout=PATIENCE_SECONDS)["type"], "subscribe")
            client.execute_command("TL.APPEND", "messages:py", "pushed")
            equal(subscriber.get_message(timeout=PATIENCE_SECONDS)["type"], "message")
            subscriber.close()
            client.close()
    print(f"ok redis-py {redis.__version__} over TLS")


def check_versions(folder: Path, port: int) -> None:
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", port)) as raw, \
            context.wrap_socket(raw, server_hostname="localhost") as tls:
        equal(tls.version(), "TLSv1.2")
    old = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_1",
                          "-cipher", "DEFAULT@SECLEVEL=0"], stdin=subprocess.DEVNULL, capture_output=True)
    assert old.returncode != 0, "TLS 1.1 is refused"
    print("ok TLS 1.2 is accepted, 1.1 is refused")


def serial(folder: Path, port: int) -> int:
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    with socket.create_connection(("127.0.0.1", port)) as raw, \
            context.wrap_socket(raw, server_hostname="localhost") as tls:
        return int(tls.getpeercert()["serialNumber"], 16)


def check_renewal(folder: Path, port: int, server: RunningServer) -> None:
    for word in ["by SIGHUP", "by itself"]:
        before = serial(folder, port)
        make_certificate(folder, "server", "renewed")
        if word == "by SIGHUP":
            server._process().send_signal(signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while serial(folder, port) == before:
            assert time.monotonic() < deadline, f"a renewed certificate is used {word}"
            time.sleep(0.1)
    print("ok a renewed certificate is used by SIGHUP and by itself")


def equal(found: object, wanted: object) -> None:
    assert found == wanted, f"{str(found)[:200]} instead of {str(wanted)[:200]}"


def main() -> int:
    if len(sys.argv) != 2:
        sys.exit("usage: check_tls.py PATH")
    with tempfile.TemporaryDirectory(prefix="strandline-") as directory:
        folder = Path(directory)
        make_authority(folder)
        make_certificate(folder, "server", "server")
        make_certificate(folder, "client", "ann")
        port = free_port()
        settings = folder / "strandline.toml"
        settings.write_text(
            f'[tls]\nport = {port}\ncertificate = "{folder}/server.crt"\nkey = "{folder}/server.key"\n'
            f'client_ca = "{folder}/ca.crt"\nclient_certificates = "optional"\n')
        server = RunningServer(sys.argv[1], str(folder / "data"))
        server.command += ["--config", str(settings)]
        with server:
            check_redis_cli(folder, port)
            check_redis_py(folder, port)
            subprocess.run(["node", str(HERE / "check_tls.mjs"), str(port), str(folder)], check=True)
            check_versions(folder, port)
            check_renewal(folder, port, server)
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
