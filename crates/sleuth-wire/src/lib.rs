//! Between the wire and the domain.
//!
//! - [`item`] turns a message into a request, or says which field is wrong; [`encode_item`] is its
//!   inverse for clients.
//! - [`scores`] and [`valid`] encode what was scored; [`Assembly`] puts it together again.
//! - [`correct_item`], [`correct_event`] and [`correction`] do the same for corrections;
//!   [`CorrectReply`] reads them back.
//! - [`status`] and [`invalid`] are the only places where a [`Failure`](sleuth_core::Failure)
//!   becomes a gRPC status or a verdict; [`Refusal`] is what a client makes of either.
//!
//! Only receivers validate.

mod assembly;
mod class;
mod correct;
mod correct_reply;
mod field;
mod item;
mod limits;
mod load;
mod model;
mod options;
mod refusal;
mod score;
mod status;

pub use assembly::{Assembly, Unreadable};
pub use class::{class_from_wire, class_to_wire};
pub use correct::{ParsedCorrection, correct_item, encode_correct_item};
pub use correct_reply::{CorrectReply, Finished, Used, correct_event, correct_reply, correction};
pub use field::Place;
pub use item::{
    AppendedText, ItemKey, ParsedItem, ParsedOpen, Trace, append, duration, encode_context,
    encode_item, encode_policy, encode_trace, item, key, open, timeout, trace_context,
};
pub use limits::Limits;
pub use load::{load_report, load_response};
pub use model::{digest, encoded, model_card, model_response, tokenize_response, utf8_text};
pub use options::{aggregation_from_wire, aggregation_to_wire, encode_options, options};
pub use refusal::Refusal;
pub use score::{Rows, invalid, scores, sound, valid};
pub use status::{code, status};
