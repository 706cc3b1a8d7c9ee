use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What kind of error a false span is: the eight taxonomies of the TLDR paper (appendix A.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Taxonomy {
    /// Where one object lies to another, or in the image.
    SpatialRelationship,
    /// A colour or a size.
    VisualAttribute,
    /// Attributes exchanged between objects.
    AttributeBinding,
    /// What an object is.
    ObjectIdentification,
    /// How many there are.
    Counting,
    /// Anything of an object described as small.
    SmallObject,
    /// Written words in the image.
    TextOcr,
    /// Something there is said to be absent, or something absent to be there.
    Counterfactual,
}

/// No taxonomy has that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownTaxonomy(pub String);

// === impl Taxonomy ===

impl Taxonomy {
    /// Every taxonomy, in the paper's order.
    pub const ALL: [Self; 8] = [
        Self::SpatialRelationship,
        Self::VisualAttribute,
        Self::AttributeBinding,
        Self::ObjectIdentification,
        Self::Counting,
        Self::SmallObject,
        Self::TextOcr,
        Self::Counterfactual,
    ];

    /// The name used in data and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SpatialRelationship => "spatial_relationship",
            Self::VisualAttribute => "visual_attribute",
            Self::AttributeBinding => "attribute_binding",
            Self::ObjectIdentification => "object_identification",
            Self::Counting => "counting",
            Self::SmallObject => "small_object",
            Self::TextOcr => "text_ocr",
            Self::Counterfactual => "counterfactual",
        }
    }
}

impl fmt::Display for Taxonomy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Taxonomy {
    type Err = UnknownTaxonomy;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|t| t.name() == name)
            .ok_or_else(|| UnknownTaxonomy(name.to_owned()))
    }
}

// === impl UnknownTaxonomy ===

impl fmt::Display for UnknownTaxonomy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Taxonomy::ALL.map(Taxonomy::name).join(", ");
        write!(f, "no taxonomy is named `{}`; there are {names}", self.0)
    }
}

impl std::error::Error for UnknownTaxonomy {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for taxonomy in Taxonomy::ALL {
            assert_eq!(taxonomy.name().parse::<Taxonomy>(), Ok(taxonomy));
            assert_eq!(serde_json::to_value(taxonomy).unwrap(), taxonomy.name());
        }
        assert!("ocr".parse::<Taxonomy>().is_err());
    }
}
