//! The operator of a request, and the rights of the request.

use std::convert::Infallible;
use std::fmt;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use knockplane_policy::wire::history::ApplyNote;

use crate::events::change::RecordedOperator;
use crate::sessions::Holder;
use crate::tokens::{Role, TokenName};

/// The operator of a request, for history and log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// A user of this host, at a unix socket.
    User(u32),
    /// The holder of a token.
    Token(TokenName),
    /// The user of a session at the web page.
    Session(Holder),
    /// No server has accepted the request: a test of a router.
    Unknown,
}

impl Operator {
    /// The user id, if the operator is a user of this host.
    pub const fn uid(&self) -> Option<u32> {
        match self {
            Operator::User(uid) | Operator::Session(Holder::User(uid)) => Some(*uid),
            Operator::Token(_) | Operator::Session(Holder::Token(_)) | Operator::Unknown => None,
        }
    }

    /// The name of the token, if the operator has one.
    pub fn token(&self) -> Option<&str> {
        match self {
            Operator::Token(name) | Operator::Session(Holder::Token(name)) => Some(name.as_str()),
            Operator::User(_) | Operator::Session(Holder::User(_)) | Operator::Unknown => None,
        }
    }

    /// Whether the operator uses the web page.
    pub const fn is_at_page(&self) -> bool {
        matches!(self, Operator::Session(_))
    }

    /// The operator in the stream of events and in the audit file.
    pub(crate) fn recorded(&self) -> RecordedOperator {
        RecordedOperator { uid: self.uid(), token: self.token().map(str::to_owned), page: self.is_at_page() }
    }

    /// A note for the history with this operator alone.
    pub fn note(&self) -> ApplyNote {
        let RecordedOperator { uid, token, page } = self.recorded();
        ApplyNote { uid, token, page, ..ApplyNote::default() }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operator::User(uid) => write!(f, "user {uid}"),
            Operator::Token(name) => write!(f, "token {name}"),
            Operator::Session(holder) => holder.fmt(f),
            Operator::Unknown => f.write_str("unknown"),
        }
    }
}

/// The operator and the role of a request that was let in.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) operator: Operator,
    pub(super) role: Role,
}

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Access>().map_or(Operator::Unknown, |access| access.operator.clone()))
    }
}
