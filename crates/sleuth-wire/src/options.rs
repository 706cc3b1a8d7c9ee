use sleuth_core::{Aggregation, ErrorClass, Failure, Options, Realignment, Reason, SentenceRule};
use sleuth_proto::v1;

/// The wire's number of an aggregation.
pub const fn aggregation_to_wire(aggregation: Aggregation) -> v1::Aggregation {
    match aggregation {
        Aggregation::MeanLog => v1::Aggregation::MeanLog,
        Aggregation::ProductBits => v1::Aggregation::ProductBits,
        Aggregation::Product => v1::Aggregation::Product,
        Aggregation::Min => v1::Aggregation::Min,
        Aggregation::Mean => v1::Aggregation::Mean,
        Aggregation::LogSum => v1::Aggregation::LogSum,
        Aggregation::CountBelow => v1::Aggregation::CountBelow,
    }
}

/// The aggregation of a wire number; `None` for a number that is not registered or unspecified.
pub fn aggregation_from_wire(aggregation: i32) -> Option<Aggregation> {
    Aggregation::ALL.into_iter().find(|&a| aggregation_to_wire(a) as i32 == aggregation)
}

/// A caller's choices; absent ones take the defaults.
pub fn options(wire: Option<&v1::Options>) -> Result<Options, Failure> {
    let Some(wire) = wire else { return Ok(Options::default()) };
    let aggregation = match wire.aggregation {
        None | Some(0) => Aggregation::default(),
        Some(number) => aggregation_from_wire(number)
            .ok_or_else(|| unknown_value("context.options.aggregation", number))?,
    };
    if let Some(threshold) = wire.threshold
        && !(0.0..=1.0).contains(&threshold)
    {
        let detail = "the threshold lies from 0 to 1";
        return Err(Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_INVALID, detail)
            .at("context.options.threshold"));
    }
    Ok(Options {
        aggregation,
        sentences: sentence_rule(wire.sentences)?,
        threshold: wire.threshold,
        realignment: realignment(wire.realignment)?,
    })
}

/// The inverse of [`options`].
pub fn encode_options(options: &Options) -> v1::Options {
    let sentences = match options.sentences {
        SentenceRule::Period => v1::SentenceRule::Period,
        SentenceRule::Unicode => v1::SentenceRule::Unicode,
    };
    let realignment = match options.realignment {
        Realignment::Min => v1::Realignment::Min,
        Realignment::Mean => v1::Realignment::Mean,
        Realignment::Product => v1::Realignment::Product,
    };
    v1::Options {
        aggregation: Some(aggregation_to_wire(options.aggregation) as i32),
        threshold: options.threshold,
        sentences: sentences as i32,
        realignment: realignment as i32,
    }
}

fn sentence_rule(number: i32) -> Result<SentenceRule, Failure> {
    const FIELD: &str = "context.options.sentences";
    match v1::SentenceRule::try_from(number) {
        Ok(v1::SentenceRule::Unspecified | v1::SentenceRule::Period) => Ok(SentenceRule::Period),
        Ok(v1::SentenceRule::Unicode) => Ok(SentenceRule::Unicode),
        Err(_) => Err(unknown_value(FIELD, number)),
    }
}

fn realignment(number: i32) -> Result<Realignment, Failure> {
    match v1::Realignment::try_from(number) {
        Ok(v1::Realignment::Unspecified | v1::Realignment::Min) => Ok(Realignment::Min),
        Ok(v1::Realignment::Mean) => Ok(Realignment::Mean),
        Ok(v1::Realignment::Product) => Ok(Realignment::Product),
        Err(_) => Err(unknown_value("context.options.realignment", number)),
    }
}

fn unknown_value(field: &'static str, number: i32) -> Failure {
    let detail = format!("{number} is not a value of this enum");
    Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_INVALID, detail).at(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregations_keep_their_numbers() {
        for (place, aggregation) in Aggregation::ALL.into_iter().enumerate() {
            assert_eq!(aggregation_to_wire(aggregation) as usize, place + 1);
        }
        assert_eq!(aggregation_from_wire(0), None);
        assert_eq!(aggregation_from_wire(8), None);
    }

    #[test]
    fn a_threshold_outside_its_range_is_refused() {
        for threshold in [-0.1, 1.1, f32::NAN, f32::INFINITY] {
            let wire = v1::Options { threshold: Some(threshold), ..v1::Options::default() };
            let failure = options(Some(&wire)).unwrap_err();
            assert_eq!(failure.field, Some("context.options.threshold"));
        }
        let zero = v1::Options { threshold: Some(0.0), ..v1::Options::default() };
        assert_eq!(options(Some(&zero)).unwrap().threshold, Some(0.0));
    }

    #[test]
    fn unknown_enum_numbers_are_refused() {
        let wire = v1::Options { aggregation: Some(77), ..v1::Options::default() };
        assert_eq!(options(Some(&wire)).unwrap_err().class, ErrorClass::InvalidRequest);
        let wire = v1::Options { realignment: 77, ..v1::Options::default() };
        assert_eq!(options(Some(&wire)).unwrap_err().class, ErrorClass::InvalidRequest);
        let wire = v1::Options { sentences: 3, ..v1::Options::default() };
        assert_eq!(options(Some(&wire)).unwrap_err().class, ErrorClass::InvalidRequest);
    }
}
