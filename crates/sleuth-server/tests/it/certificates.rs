//! Certificates of a test's own.

use std::fs;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// Signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, as PEM.
pub(crate) struct Leaf {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Where a server's files lie.
pub(crate) struct Files {
    folder: tempfile::TempDir,
}

// === impl Authority ===

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate of a name, good for years.
    pub(crate) fn issue(&self, name: &str) -> Leaf {
        self.issue_until(name, 2099)
    }

    pub(crate) fn issue_until(&self, name: &str, year: i32) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Leaf { certificate, key: key.serialize_pem() }
    }
}

// === impl Files ===

impl Files {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file as careful tools do: all of it or nothing.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let (path, half) = (self.path(name), self.path("half-written"));
        fs::write(&half, text).unwrap();
        fs::rename(&half, &path).unwrap();
        path
    }

    /// A leaf as `tls.crt` and `tls.key`.
    pub(crate) fn write_leaf(&self, leaf: &Leaf) -> (PathBuf, PathBuf) {
        (self.write("tls.crt", &leaf.certificate), self.write("tls.key", &leaf.key))
    }
}
