"""Kubeconfig files of given clusters: what is read, and what is refused with the remedy."""

from pathlib import Path

import pytest
import yaml

from tools.controlplane.kubeconfig import Access, KubeconfigError, read


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    access = Access("https://127.0.0.1:1", b"PEM", "secret")
    path = access.write(tmp_path / "config", "somebody")
    assert read(path, tmp_path) == access
    assert path.stat().st_mode & 0o777 == 0o600
    assert "secret" not in repr(access)


def write(path: Path, cluster: dict[str, str], user: dict[str, object]) -> Path:
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://x", **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


def test_files_are_found_beside_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "ca.pem").write_bytes(b"CA")
    user: dict[str, object] = {"client-certificate-data": "Q0VSVA==", "client-key-data": "S0VZ"}
    access = read(write(tmp_path / "sub" / "config", {"certificate-authority": "ca.pem"}, user), tmp_path)
    assert access.ca == b"CA"
    assert access.certificate is not None
    assert access.certificate.read_bytes() == b"CERT"


def test_what_is_not_supported_is_said(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="no certificate-authority; add its CA"):
        read(write(tmp_path / "a", {}, {"token": "t"}), tmp_path)
    with pytest.raises(KubeconfigError, match="no token and no client certificate"):
        read(write(tmp_path / "b", {"certificate-authority-data": "Q0E="}, {"exec": {}}), tmp_path)
    path = write(tmp_path / "c", {}, {})
    path.write_text(path.read_text().replace("current-context: c", "current-context: other"))
    with pytest.raises(KubeconfigError, match="no entry 'other' in contexts"):
        read(path, tmp_path)
