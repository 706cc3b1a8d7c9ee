use std::fmt;

mod spelling;

/// The policy's tokens of a response, or of a part of it, as the caller gave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyTokens {
    /// Where each token ends, in bytes from the start of the text; never descending.
    Ends(Vec<u32>),
    /// How each token is spelled: its own bytes, or the name that its vocabulary has for it in
    /// byte-level BPE (`Ġred`, `Ċ`) or in SentencePiece (`▁red`, `<0x0A>`).
    Pieces(Vec<Vec<u8>>),
}

/// The policy's tokens do not make up the text. Tells places, never content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyMismatch {
    /// The token at fault, counted from 0; the number of tokens where one is missing.
    pub index: usize,
    /// What is wrong with it.
    pub what: PolicyFault,
}

/// What is wrong with a policy's token. Places are bytes from the start of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyFault {
    /// It ends before the token in front of it.
    Descends {
        /// Where it ends.
        end: u32,
        /// Where the token in front of it ends.
        before: u32,
    },
    /// It ends past the text.
    PastText {
        /// Where it ends.
        end: u32,
        /// Length of the text.
        len: usize,
    },
    /// The text has something else at its place.
    Differs {
        /// Its place.
        at: usize,
    },
    /// There is no such token, though the text goes on.
    Missing {
        /// Where the last token ends.
        at: usize,
        /// Length of the text.
        len: usize,
    },
}

// === impl PolicyTokens ===

impl PolicyTokens {
    /// Where each token ends in `text`, in bytes from its start: never descending, the last at
    /// `text.len()`. Equal neighbours are tokens without bytes, such as the policy's own `<eos>`.
    ///
    /// `text` may start and end inside a character and is under 4 GiB, as every response is.
    /// `first`: nothing of the response precedes it.
    ///
    /// Pieces are read as raw bytes, as byte-level BPE and as SentencePiece; the first reading
    /// that gives `text` counts. In each of them a piece may also stand for its own bytes (as
    /// added tokens do), and one that does not stand in the text at its place but is written like
    /// a special token (`<…>`, `[…]`) stands for no bytes. SentencePiece puts a space in front of a
    /// text: with `first`, the one of the first piece that stands for text is left out where the
    /// text lacks it.
    ///
    /// Takes time linear in the text and the tokens. Fails where the tokens do not give `text`,
    /// naming the token at which the reading that got furthest failed.
    pub fn ends(&self, text: &[u8], first: bool) -> Result<Vec<u32>, PolicyMismatch> {
        match self {
            Self::Ends(ends) => {
                check_ends(ends, text.len())?;
                Ok(ends.clone())
            }
            Self::Pieces(pieces) => spelling::ends(pieces, text, first),
        }
    }

    /// How many tokens.
    pub fn len(&self) -> usize {
        match self {
            Self::Ends(ends) => ends.len(),
            Self::Pieces(pieces) => pieces.len(),
        }
    }

    /// True for no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// === impl PolicyMismatch ===

impl fmt::Display for PolicyMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy token {} {}", self.index, self.what)
    }
}

impl std::error::Error for PolicyMismatch {}

// === impl PolicyFault ===

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descends { end, before } => {
                write!(f, "ends at byte {end}, before the one in front of it, at byte {before}")
            }
            Self::PastText { end, len } => {
                write!(f, "ends at byte {end} of a text of {len} bytes")
            }
            Self::Differs { at } => write!(f, "is not what the text has at byte {at}"),
            Self::Missing { at, len } => {
                write!(f, "is missing: those before it end at byte {at} of {len}")
            }
        }
    }
}

fn check_ends(ends: &[u32], len: usize) -> Result<(), PolicyMismatch> {
    let mut before = 0;
    for (index, &end) in ends.iter().enumerate() {
        if end < before {
            return Err(PolicyMismatch { index, what: PolicyFault::Descends { end, before } });
        }
        if end as usize > len {
            return Err(PolicyMismatch { index, what: PolicyFault::PastText { end, len } });
        }
        before = end;
    }
    complete(ends.len(), before as usize, len)
}

/// Whether `count` tokens that end at `at` reach the end of the text.
fn complete(count: usize, at: usize, len: usize) -> Result<(), PolicyMismatch> {
    if at == len {
        return Ok(());
    }
    Err(PolicyMismatch { index: count, what: PolicyFault::Missing { at, len } })
}

#[cfg(test)]
mod tests;
