"""Real certificates for 127.0.0.1, made by openssl."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """A self-signed certificate and its key, and what a client trusts to meet it."""

    cert: Path
    key: Path

    def client(self) -> ssl.SSLContext:
        """Trusts this certificate and no other."""
        return ssl.create_default_context(cafile=str(self.cert))

    def install(self, cert: Path, key: Path) -> None:
        """Puts the pair where a server looks, as a renewal does: each file at once."""
        for source, target in ((self.cert, cert), (self.key, key)):
            new = target.with_suffix(".new")
            new.write_bytes(source.read_bytes())
            new.rename(target)


def make(folder: Path, name: str, *, passphrase: str = "") -> Pair:
    """A pair of its own."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    protect = ["-passout", f"pass:{passphrase}"] if passphrase else ["-noenc"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *protect]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", f"/CN={name}"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run(command, check=True, capture_output=True)
    return Pair(cert, key)
