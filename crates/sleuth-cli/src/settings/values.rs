//! How the text of a value is read. `None`: it is not what the key allows.

use std::str::FromStr;
use std::time::Duration;

pub(super) const SWITCH: &str = "true or false";

/// A number of a range.
pub(super) fn within<T: FromStr + PartialOrd + Copy>(text: &str, least: T, most: T) -> Option<T> {
    let number: T = text.parse().ok()?;
    (least <= number && number <= most).then_some(number)
}

pub(super) fn switch(text: &str) -> Option<bool> {
    text.parse().ok()
}

/// Seconds, with fractions.
pub(super) fn seconds(text: &str, least: f64, most: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(within(text, least, most)?).ok()
}

/// MiB as bytes.
pub(super) fn mebibytes(text: &str, most: u64) -> Option<u64> {
    within(text, 1, most)?.checked_mul(1 << 20)
}

/// Anything but nothing.
pub(super) fn text<T: From<String>>(text: &str) -> Option<T> {
    (!text.is_empty()).then(|| T::from(text.to_owned()))
}

/// The text without what stands before an `@` in an address: a user, a password.
pub(super) fn shown(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://[redacted]@{host}{path}"),
        None => text.to_owned(),
    }
}

/// `NAME=VALUE`, more after commas.
pub(super) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let pair = |text: &str| {
        let (name, value) = text.split_once('=')?;
        (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    };
    text.split(',').map(pair).collect()
}

/// Names after one another, none empty.
pub(super) fn hosts(text: &str) -> Option<Vec<String>> {
    text.split(',').map(|host| self::text(host.trim())).collect()
}

/// A header's name, in lower case.
pub(super) fn header(text: &str) -> Option<String> {
    let sound = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (!text.is_empty() && text.bytes().all(sound)).then(|| text.to_ascii_lowercase())
}

/// Tokens per second, and seconds per batch.
pub(super) fn simulated(text: &str) -> Option<(f64, f64)> {
    let (rate, batch) = text.split_once(',')?;
    Some((within(rate, f64::MIN_POSITIVE, f64::MAX)?, seconds(batch, 0.0, 86_400.0)?.as_secs_f64()))
}
