"""flwr's SuperLink as a process of ours: on loopback only, with a certificate of its own, gone when we are."""

import os
import subprocess
import sys
import sysconfig
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedpress.compression.errors import FedpressError
from fedpress.server import launcher
from fedpress.server.deploy.control import Control

LOG, DATABASE, HOME = "server.log", "superlink.db", "superlink"
_YEARS = timedelta(days=3650)
_START = 120.0  # seconds until it must answer


class SuperLink:
    """A SuperLink over the run's folder; `start` it, ask whether it is `alive`, `stop` it.

    Parameters
    ----------
    folder : of the run: its database, its log and its Flower home are kept there
    authenticated : whether nodes need a key that is registered
    """

    def __init__(self, folder: Path, *, authenticated: bool) -> None:
        self._folder = folder
        self._authenticated = authenticated
        self._process: subprocess.Popen[bytes] | None = None
        self._home = folder / HOME
        self._home.mkdir(mode=0o700, exist_ok=True)
        self.root = _make_certificates(self._home)  # PEM of the authority that its certificate is from
        self.port = launcher.free_port()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, and wait until it answers; raise FedpressError if it does not."""
        command = ["flower-superlink", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--database", str(self._folder / DATABASE), "--disable-runtime-dependency-installation"]
        command += ["--ssl-ca-certfile", str(self._home / "ca.pem")]
        command += ["--ssl-certfile", str(self._home / "cert.pem"), "--ssl-keyfile", str(self._home / "key.pem")]
        if self._authenticated:
            command.append("--enable-supernode-auth")
        self._process = subprocess.Popen(
            launcher.command(self._folder / LOG, self.port, command, None, None),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=_environment(self._home),
            start_new_session=True,  # Ctrl-C is for us: what we started is stopped by `stop`
        )
        deadline = time.monotonic() + _START
        while not self._answers():
            if not self.alive or time.monotonic() > deadline:
                self.stop()
                raise FedpressError(f"SuperLink does not start: {self._folder / LOG} says why")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it and all that it started, and wait until they are gone."""
        if self._process is None:
            return
        if self._process.stdin:
            self._process.stdin.close()  # the launcher's standard input ends: it kills what it started
        self._process.wait()
        self._process = None

    def control(self) -> Control:
        """Return a connection to its control API."""
        return Control(self.address, self.root)

    def _answers(self) -> bool:
        if not launcher.listens(self.port):
            return False
        try:
            with self.control() as control:
                control.nodes()
        except FedpressError:
            return False
        return True


def _environment(home: Path) -> dict[str, str]:
    inherited = os.environ
    direct = ",".join(filter(None, [inherited.get("no_proxy") or inherited.get("NO_PROXY"), "127.0.0.1"]))
    return {
        **inherited,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_LOG_LEVEL": "WARNING",  # else a line for every request of every node
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",  # seconds until the run is noticed
        "no_proxy": direct,
        "NO_PROXY": direct,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path),
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), inherited.get("PATH", os.defpath)]),
    }


def _make_certificates(folder: Path) -> bytes:
    """Write an authority and a certificate for 127.0.0.1 from it, that nobody else will ever see; return the former."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedpress loopback")])
    now = datetime.now(UTC)

    def build(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(root_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + _YEARS)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
                critical=False,
            )
        )

    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    root = (
        build(root_name, root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        build(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")]), key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for name, data in (("ca.pem", root.public_bytes(pem)), ("cert.pem", leaf.public_bytes(pem)), ("key.pem", secret)):
        path = folder / name
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
    return root.public_bytes(pem)
