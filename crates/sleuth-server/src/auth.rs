//! Who calls, and what they may do.
//!
//! A caller is known by a bearer token, else by its client certificate, else not at all. The
//! check stands before every service and looks at a call's headers once, when it begins.

mod access;
mod credentials;
mod layer;
mod token;

pub use self::credentials::{Role, is_caller_name};
pub use self::token::NewToken;
pub(crate) use self::{
    access::{Access, READ, SCORE},
    credentials::{Credentials, Identity},
    layer::{AuthLayer, check},
};
