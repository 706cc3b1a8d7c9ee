use std::collections::HashSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use sleuth_service::Caller;
use subtle::ConstantTimeEq as _;

use super::token::digest_of;
use crate::SecurityError;
use crate::reload::{Latest, Source};

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Score, correct, put images; and what `read` may.
    Score,
    /// Tokenise, describe the model, watch the load.
    Read,
    /// What `score` and `read` may, on behalf of the tenant that a call names in `sleuth-tenant`.
    Router,
    /// `AdminService`, and nothing else.
    Admin,
}

/// Who called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// How logs name it.
    pub(crate) name: Arc<str>,
    tenant: Arc<str>,
    roles: Arc<[Role]>,
}

/// The callers that a server knows.
pub(crate) struct Credentials {
    tokens: Vec<([u8; 32], Identity)>,
    certificates: Vec<(String, Identity)>,
}

/// A credentials file, as TOML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Entry>,
    #[serde(default)]
    certificate: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    tenant: Option<String>,
    /// Read by hand: an error of the parser would repeat a token that stands in the wrong place.
    roles: Vec<String>,
    blake3: Option<String>,
    san: Option<String>,
}

/// Whether a name or a tenant may stand in a credentials file: 1 to 256 printable ASCII characters
/// without spaces.
pub fn is_caller_name(text: &str) -> bool {
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && printable
}

/// The longest name or tenant, in bytes.
const MAX_NAME_BYTES: usize = 256;
/// The most entries.
const MAX_ENTRIES: usize = 10_000;

// === impl Role ===

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Score, Self::Read, Self::Router, Self::Admin];

    /// The role of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// As a credentials file has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Score => "score",
            Self::Read => "read",
            Self::Router => "router",
            Self::Admin => "admin",
        }
    }
}

// === impl Identity ===

impl Identity {
    /// The caller of a certificate that is vouched for, where no credentials file says more: the
    /// tenant is the certificate's first name.
    pub(super) fn of_certificate(names: &[String]) -> Self {
        let name: Arc<str> = names.first().map_or("", String::as_str).into();
        Self { tenant: Arc::clone(&name), name, roles: Arc::new([Role::Score, Role::Read]) }
    }

    pub(super) fn has_any(&self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.roles.contains(role))
    }

    /// Whether it calls on behalf of others.
    pub(crate) fn is_router(&self) -> bool {
        self.has_any(&[Role::Router])
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller { tenant: Arc::clone(&self.tenant) }
    }
}

// === impl Credentials ===

impl Credentials {
    /// Reads the file, and reads it again as long as the source is followed.
    pub(crate) fn open(path: PathBuf) -> Result<(Source<Self>, Latest<Self>), SecurityError> {
        let files = vec![path.clone()];
        Source::open("credentials", files, move || Self::read(&path))
    }

    pub(crate) fn read(path: &Path) -> Result<Self, SecurityError> {
        let fail = |source| SecurityError::Read { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(fail)?;
        Self::parse(&text)
            .map_err(|faults| SecurityError::Credentials { path: path.to_owned(), faults })
    }

    /// Gives all faults at once. They never repeat what the file holds as a value.
    fn parse(text: &str) -> Result<Self, Vec<String>> {
        let file: File = toml::from_str(text).map_err(|error| {
            let message = without_strings(error.message());
            vec![match error.span() {
                Some(span) => format!("line {}: {message}", line(text, span)),
                None => message,
            }]
        })?;
        let mut faults = Vec::new();
        let mut names = HashSet::new();
        let entries = file.token.len() + file.certificate.len();
        if entries == 0 || entries > MAX_ENTRIES {
            faults.push(format!("has {entries} entries; 1 to {MAX_ENTRIES} are needed"));
        }
        for entry in file.token.iter().chain(&file.certificate) {
            entry.check(&mut faults);
            if !names.insert(&entry.name) {
                faults.push(format!("`{}` is there twice", entry.name));
            }
        }
        let tokens: Vec<_> = file.token.iter().filter_map(|e| e.token(&mut faults)).collect();
        let certificates: Vec<_> =
            file.certificate.iter().filter_map(|e| e.certificate(&mut faults)).collect();
        if tokens.iter().map(|(digest, _)| digest).collect::<HashSet<_>>().len() < tokens.len() {
            faults.push("two tokens have the same blake3".to_owned());
        }
        if faults.is_empty() { Ok(Self { tokens, certificates }) } else { Err(faults) }
    }

    /// Whose token an `authorization` header holds. Takes as long wherever the token stands, and
    /// whether it is known or not.
    pub(super) fn by_token(&self, header: &[u8]) -> Option<&Identity> {
        let digest = digest_of(header)?;
        let mut found = None;
        for (known, identity) in &self.tokens {
            if bool::from(known.ct_eq(&digest)) {
                found = Some(identity);
            }
        }
        found
    }

    pub(super) fn by_names(&self, names: &[String]) -> Option<&Identity> {
        let listed = self.certificates.iter().find(|(san, _)| names.contains(san));
        listed.map(|(_, identity)| identity)
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("tokens", &self.tokens.len())
            .field("certificates", &self.certificates.len())
            .finish()
    }
}

// === impl Entry ===

impl Entry {
    fn check(&self, faults: &mut Vec<String>) {
        if !is_caller_name(&self.name) {
            faults.push(format!(
                "a name is 1 to {MAX_NAME_BYTES} printable characters without spaces"
            ));
        }
        if self.tenant.as_deref().is_some_and(|tenant| !is_caller_name(tenant)) {
            faults.push(format!(
                "the tenant of `{}` is 1 to {MAX_NAME_BYTES} printable characters without spaces",
                self.name
            ));
        }
        if self.roles.is_empty() {
            faults.push(format!("`{}` has no roles; there are score, read, admin", self.name));
        }
        if self.roles.iter().any(|role| Role::named(role).is_none()) {
            faults.push(format!("a role of `{}` is none of score, read, admin", self.name));
        }
    }

    fn token(&self, faults: &mut Vec<String>) -> Option<([u8; 32], Identity)> {
        let digest = self.blake3.as_deref().and_then(|hex| blake3::Hash::from_hex(hex).ok());
        match (digest, &self.san) {
            (Some(digest), None) => Some((*digest.as_bytes(), self.identity())),
            (None, _) => {
                faults.push(format!(
                    "the blake3 of token `{}` must be 64 hexadecimal digits, from `sleuth token new`",
                    self.name
                ));
                None
            }
            (_, Some(_)) => {
                faults.push(format!("token `{}` has a san; that is for certificates", self.name));
                None
            }
        }
    }

    fn certificate(&self, faults: &mut Vec<String>) -> Option<(String, Identity)> {
        match (&self.san, &self.blake3) {
            (Some(san), None) if !san.is_empty() => Some((san.clone(), self.identity())),
            (_, Some(_)) => {
                faults
                    .push(format!("certificate `{}` has a blake3; that is for tokens", self.name));
                None
            }
            _ => {
                faults
                    .push(format!("certificate `{}` needs a san: a DNS name or a URI", self.name));
                None
            }
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            name: self.name.as_str().into(),
            tenant: self.tenant.as_deref().unwrap_or(&self.name).into(),
            roles: self.roles.iter().filter_map(|role| Role::named(role)).collect(),
        }
    }
}

fn line(text: &str, span: Range<usize>) -> usize {
    text.bytes().take(span.start).filter(|&b| b == b'\n').count() + 1
}

/// A parser's message without what stands in quotes: it may be a token that somebody put into a
/// wrong place.
fn without_strings(message: &str) -> String {
    let parts = message.split('"').enumerate();
    parts.map(|(n, part)| if n % 2 == 0 { part } else { "[redacted]" }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::NewToken;
    use super::*;

    fn file(digest: &str) -> String {
        format!(
            "[[token]]\nname = \"trainer\"\ntenant = \"team\"\nroles = [\"score\"]\n\
             blake3 = \"{digest}\"\n\n\
             [[certificate]]\nname = \"router\"\nsan = \"router.internal\"\nroles = [\"read\"]\n"
        )
    }

    #[test]
    fn a_token_and_a_name_lead_to_their_tenants() {
        let new = NewToken::generate().unwrap();
        let credentials = Credentials::parse(&file(&new.blake3)).unwrap();
        let header = format!("Bearer {}", new.token.reveal());
        let identity = credentials.by_token(header.as_bytes()).unwrap();
        assert_eq!(&*identity.caller().tenant, "team");
        assert!(identity.has_any(&[Role::Score]) && !identity.has_any(&[Role::Admin]));
        assert!(credentials.by_token(b"Bearer other").is_none());
        let names = ["a.b".to_owned(), "router.internal".to_owned()];
        assert_eq!(&*credentials.by_names(&names).unwrap().caller().tenant, "router");
        assert!(credentials.by_names(&names[..1]).is_none());
    }

    #[test]
    fn all_faults_are_told_and_no_value_is_repeated() {
        let faults = Credentials::parse(
            "[[token]]\nname = \"a\"\nroles = []\nblake3 = \"sleuth_plain\"\n\
             [[token]]\nname = \"a\"\ntenant = \"\"\nroles = [\"admin\"]\nblake3 = \"x\"\nsan = \"s\"\n\
             [[certificate]]\nname = \"c\"\nroles = [\"read\"]\n",
        )
        .unwrap_err();
        assert_eq!(faults.len(), 6, "{faults:#?}");
        assert!(!faults.join(" ").contains("sleuth_plain"));
    }

    #[test]
    fn what_does_not_parse_is_named_by_its_line_without_its_text() {
        for (bad, says) in [
            (
                "[[token]]\nname = \"a\"\ntoken = \"sleuth_plain\"\n",
                "line 3: unknown field `token`",
            ),
            ("[[token]]\nname = \"a\"\nroles = \"sleuth_plain\"\n", "line 3: invalid type"),
            ("[[token]]\nname = \"a\"\nroles = [\"sleuth_plain\"]\n", "a role of `a` is none of"),
            ("sleuth_plain", "line 1"),
            ("", "has 0 entries"),
        ] {
            let faults = Credentials::parse(bad).err().unwrap().join("; ");
            assert!(faults.contains(says), "{faults}");
            assert!(!faults.contains("sleuth_plain"), "{faults}");
        }
    }

    #[test]
    fn the_same_token_twice_is_refused() {
        let digest = "0".repeat(64);
        let twice = format!("{}{}", file(&digest), file(&digest).replace("trainer", "other"));
        let faults = Credentials::parse(&twice).err().unwrap().join("; ");
        assert!(faults.contains("same blake3") && faults.contains("`router` is there twice"));
    }
}
