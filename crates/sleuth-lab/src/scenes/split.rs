use std::fmt;
use std::str::FromStr;

use super::{Colour, Kind};

/// Which of three disjoint worlds a scene is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// For training: never holds nor names a held-out (kind, colour) pair.
    Train,
    /// For choosing among trained models; all pairs.
    Validation,
    /// For the final numbers; all pairs.
    Test,
}

/// No split has that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownSplit(pub String);

// === impl Split ===

impl Split {
    /// Every split.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// The name used in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }

    /// Whether scenes and texts of this split may hold a pair.
    pub fn allows(self, kind: Kind, colour: Colour) -> bool {
        self != Self::Train || !is_held_out(kind, colour)
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Split {
    type Err = UnknownSplit;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|s| s.name() == name)
            .ok_or_else(|| UnknownSplit(name.to_owned()))
    }
}

// === impl UnknownSplit ===

impl fmt::Display for UnknownSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no split is named `{}`; there are train, validation, test", self.0)
    }
}

impl std::error::Error for UnknownSplit {}

/// Whether a pair is kept out of training: 24 of the 192, each kind once, each colour three times.
pub fn is_held_out(kind: Kind, colour: Colour) -> bool {
    (3 * kind as usize + 2) % Colour::ALL.len() == colour as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_held_out_in_one_colour_and_each_colour_for_three_kinds() {
        for kind in Kind::ALL {
            assert_eq!(Colour::ALL.iter().filter(|&&c| is_held_out(kind, c)).count(), 1);
        }
        for colour in Colour::ALL {
            assert_eq!(Kind::ALL.iter().filter(|&&k| is_held_out(k, colour)).count(), 3);
        }
    }

    #[test]
    fn names_are_read_back() {
        assert!(Split::ALL.into_iter().all(|s| s.name().parse() == Ok(s)));
        assert!("trian".parse::<Split>().unwrap_err().to_string().contains("validation"));
    }
}
