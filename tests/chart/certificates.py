"""Files that settings name: an authority, certificates, credentials, a token."""

import datetime
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.UTC)


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


def signed(name, names, issuer=None):
    """A key and its certificate, by an issuer (key and certificate) or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, parent = issuer or (key, None)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(parent.subject if parent else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(hours=1))
        .not_valid_after(NOW + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=parent is None, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    return key, builder.sign(signer, hashes.SHA256())


def write_pair(folder, key, certificate):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tls.crt").write_bytes(pem(certificate))
    (folder / "tls.key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def token(sleuth, name, tenant, role):
    """A token and the entry of a credentials file that knows it."""
    made = subprocess.run([sleuth, "token", "new", "--name", name, "--tenant", tenant, "--role", role],
                          check=True, capture_output=True, text=True)
    return made.stderr.strip().split()[-1], made.stdout


def write_all(root: Path, sleuth, names):
    """Under `root` what pods find under /run/sleuth, for servers called `names`."""
    authority = signed("authority", [])
    for folder in ["tls", "router-tls", "client-tls"]:
        write_pair(root / folder, *signed(folder, names, authority))
    for folder, files in {"client-ca": ["ca.crt"], "replica-ca": ["ca.crt", "root.pem", "tls.crt"], "ca": ["ca.crt"]}.items():
        (root / folder).mkdir()
        for file in files:
            (root / folder / file).write_bytes(pem(authority[1]))
    secrets, entries = {}, {}
    for name, role in {"trainer": "score", "router": "router"}.items():
        secrets[name], entries[name] = token(sleuth, name, "rl", role)
    (root / "credentials").mkdir()
    (root / "credentials" / "credentials.toml").write_text("".join(entries.values()))
    (root / "credentials" / "routers.toml").write_text(entries["router"])
    for folder, name in {"router-token": "router", "token": "trainer"}.items():
        (root / folder).mkdir()
        (root / folder / "token").write_text(secrets[name])
    return root
