use sleuth_core::ErrorClass;
use sleuth_proto::v1;

/// The wire's number of a class.
pub const fn class_to_wire(class: ErrorClass) -> v1::ErrorClass {
    match class {
        ErrorClass::InvalidRequest => v1::ErrorClass::InvalidRequest,
        ErrorClass::TooLarge => v1::ErrorClass::TooLarge,
        ErrorClass::Unauthenticated => v1::ErrorClass::Unauthenticated,
        ErrorClass::Denied => v1::ErrorClass::Denied,
        ErrorClass::Unknown => v1::ErrorClass::Unknown,
        ErrorClass::Quota => v1::ErrorClass::Quota,
        ErrorClass::Overload => v1::ErrorClass::Overload,
        ErrorClass::Draining => v1::ErrorClass::Draining,
        ErrorClass::Deadline => v1::ErrorClass::Deadline,
        ErrorClass::Cancelled => v1::ErrorClass::Cancelled,
        ErrorClass::VersionChanged => v1::ErrorClass::VersionChanged,
        ErrorClass::Unsupported => v1::ErrorClass::Unsupported,
        ErrorClass::ModelFailure => v1::ErrorClass::ModelFailure,
    }
}

/// The class of a wire number; a number of a newer server is a model failure, as the proto says.
pub fn class_from_wire(class: i32) -> ErrorClass {
    ErrorClass::ALL
        .into_iter()
        .find(|&c| class_to_wire(c) as i32 == class)
        .unwrap_or(ErrorClass::ModelFailure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_numbers_are_the_order_of_all() {
        for (place, class) in ErrorClass::ALL.into_iter().enumerate() {
            assert_eq!(class_to_wire(class) as usize, place + 1);
            assert_eq!(class_from_wire(class_to_wire(class) as i32), class);
        }
        let beyond = i32::try_from(ErrorClass::ALL.len()).unwrap() + 1;
        assert!(v1::ErrorClass::try_from(beyond).is_err());
    }

    #[test]
    fn an_unknown_class_is_a_model_failure() {
        assert_eq!(class_from_wire(0), ErrorClass::ModelFailure);
        assert_eq!(class_from_wire(99), ErrorClass::ModelFailure);
    }
}
