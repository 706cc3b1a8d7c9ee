use bytes::Bytes;
use sleuth_core::{
    CorrectRequest, CorrectorKind, ErrorClass, Failure, GuidanceLevel, MAX_CANDIDATES, MAX_ROUNDS,
    Reason,
};
use sleuth_proto::v1;

use crate::{Limits, ParsedItem, Trace, encode_item, item};

/// An item to correct that keeps every limit.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedCorrection {
    /// What to correct.
    pub request: CorrectRequest<Bytes>,
    /// The caller's trace.
    pub trace: Option<Trace>,
}

/// Parses an item to correct; its key is parsed apart, as that of [`item`] is.
pub fn correct_item(wire: v1::CorrectItem, limits: &Limits) -> Result<ParsedCorrection, Failure> {
    let corrector = corrector(wire.corrector)?;
    let guidance = guidance(wire.guidance)?;
    let max_rounds = at_most(wire.max_rounds, MAX_ROUNDS, "max_rounds")?;
    let max_candidates = at_most(wire.max_candidates, MAX_CANDIDATES, "max_candidates")?;
    let ParsedItem { request, trace } = item(wire.item.unwrap_or_default(), limits)?;
    if request.policy.is_some() {
        return Err(invalid("repairs have no policy tokens".to_owned(), "policy"));
    }
    let request = CorrectRequest {
        item: request,
        corrector,
        guidance,
        max_rounds,
        max_candidates,
        seed: wire.seed,
    };
    Ok(ParsedCorrection { request, trace })
}

/// The inverse of [`correct_item`].
pub fn encode_correct_item(
    key: Option<v1::Key>,
    request: CorrectRequest<Bytes>,
) -> v1::CorrectItem {
    let corrector = match request.corrector {
        CorrectorKind::Builtin => v1::Corrector::Builtin,
        CorrectorKind::Endpoint => v1::Corrector::Endpoint,
        CorrectorKind::Guidance => v1::Corrector::Guidance,
    };
    let guidance = match request.guidance {
        GuidanceLevel::Token => v1::Guidance::Token,
        GuidanceLevel::Response => v1::Guidance::Response,
        GuidanceLevel::Naive => v1::Guidance::Naive,
    };
    v1::CorrectItem {
        item: Some(encode_item(key, request.item)),
        corrector: corrector as i32,
        max_rounds: Some(request.max_rounds),
        max_candidates: Some(request.max_candidates),
        guidance: guidance as i32,
        seed: request.seed,
    }
}

fn corrector(number: i32) -> Result<CorrectorKind, Failure> {
    match v1::Corrector::try_from(number) {
        Ok(v1::Corrector::Unspecified | v1::Corrector::Builtin) => Ok(CorrectorKind::Builtin),
        Ok(v1::Corrector::Endpoint) => Ok(CorrectorKind::Endpoint),
        Ok(v1::Corrector::Guidance) => Ok(CorrectorKind::Guidance),
        Err(_) => Err(invalid(format!("{number} is not a value of this enum"), "corrector")),
    }
}

fn guidance(number: i32) -> Result<GuidanceLevel, Failure> {
    match v1::Guidance::try_from(number) {
        Ok(v1::Guidance::Unspecified | v1::Guidance::Token) => Ok(GuidanceLevel::Token),
        Ok(v1::Guidance::Response) => Ok(GuidanceLevel::Response),
        Ok(v1::Guidance::Naive) => Ok(GuidanceLevel::Naive),
        Err(_) => Err(invalid(format!("{number} is not a value of this enum"), "guidance")),
    }
}

/// 1 where absent.
fn at_most(number: Option<u32>, most: u32, field: &'static str) -> Result<u32, Failure> {
    let number = number.unwrap_or(1);
    if (1..=most).contains(&number) {
        return Ok(number);
    }
    Err(invalid(format!("is {number}; must be 1 to {most}"), field))
}

fn invalid(detail: String, field: &'static str) -> Failure {
    Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_INVALID, detail).at(field)
}

#[cfg(test)]
mod tests {
    use sleuth_core::ScoreRequest;

    use super::*;

    fn policy() -> v1::PolicyTokens {
        v1::PolicyTokens { byte_end: vec![2], piece: Vec::new() }
    }
    type Edit = fn(&mut v1::CorrectItem);

    #[test]
    fn what_is_out_of_range_names_its_field() {
        let request = CorrectRequest::new(ScoreRequest::new(Bytes::from_static(b"image"), "A."));
        let wire = encode_correct_item(None, request.clone());
        let read = correct_item(wire.clone(), &Limits::default()).unwrap();
        assert_eq!(read.request, request);
        let bare = v1::CorrectItem { item: wire.item.clone(), ..v1::CorrectItem::default() };
        let read = correct_item(bare, &Limits::default()).unwrap();
        assert_eq!(read.request, request, "what is absent takes the defaults");
        let cases: [(Edit, &str); 8] = [
            (|w| w.corrector = 9, "corrector"),
            (|w| w.guidance = -1, "guidance"),
            (|w| w.max_rounds = Some(0), "max_rounds"),
            (|w| w.max_rounds = Some(9), "max_rounds"),
            (|w| w.max_candidates = Some(0), "max_candidates"),
            (|w| w.max_candidates = Some(17), "max_candidates"),
            (|w| w.item = None, "response"),
            (|w| w.item.as_mut().unwrap().policy = Some(policy()), "policy"),
        ];
        for (edit, field) in cases {
            let mut wire = wire.clone();
            edit(&mut wire);
            let failure = correct_item(wire, &Limits::default()).unwrap_err();
            assert_eq!(failure.field, Some(field));
            assert_eq!(failure.class, ErrorClass::InvalidRequest);
        }
    }
}
