use std::time::Duration;

use tonic::metadata::MetadataMap;

/// Left for the answer to travel, so that it comes before the transport's own CANCELLED.
const MOST_MARGIN: Duration = Duration::from_millis(50);

/// How long a unary call may compute, from its `grpc-timeout` header.
///
/// The transport answers CANCELLED when that time is over; ours is a little shorter, so that the
/// caller reads a deadline verdict instead.
pub(crate) fn of_call(metadata: &MetadataMap) -> Option<Duration> {
    let value = metadata.get("grpc-timeout")?.to_str().ok()?;
    let timeout = parse(value)?;
    Some(timeout.saturating_sub((timeout / 10).min(MOST_MARGIN)))
}

/// At most eight digits and a unit, as gRPC's protocol over HTTP/2 has it.
fn parse(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(n * 3600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_the_protocol() {
        assert_eq!(parse("2H"), Some(Duration::from_hours(2)));
        assert_eq!(parse("3M"), Some(Duration::from_mins(3)));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "S", "100000000S", "+1S", "1", "1s", "1é"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn ours_fires_before_the_transports() {
        let mut metadata = MetadataMap::new();
        assert_eq!(of_call(&metadata), None);
        metadata.insert("grpc-timeout", "10S".parse().unwrap());
        assert_eq!(of_call(&metadata), Some(Duration::from_millis(9950)));
        metadata.insert("grpc-timeout", "100m".parse().unwrap());
        assert_eq!(of_call(&metadata), Some(Duration::from_millis(90)));
    }
}
