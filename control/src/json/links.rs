//! Links that sign in at the web page.

use knockplane_policy::time::Time;
use schemars::JsonSchema;
use serde::Serialize;

use super::rfc_3339;
use crate::api::messages::{LinkSessionsEnded, NewLink};
use crate::tokens::Role;

/// `page`: a link that signs in once. No later answer contains it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct NewLinkJson {
    /// The link, for a browser.
    pub(crate) link: String,
    /// The address of the web page.
    pub(crate) page: String,
    /// The role of the session.
    pub(crate) role: Role,
    /// The user id of the operator in the session.
    pub(crate) uid: u32,
    /// The time at which the link expires, in the form of RFC 3339.
    pub(crate) expires: String,
}

impl From<NewLink> for NewLinkJson {
    fn from(made: NewLink) -> Self {
        let link = made.url();
        let NewLink { page, secret: _, role, uid, expires } = made;
        NewLinkJson {
            link,
            page,
            role,
            uid,
            expires: rfc_3339(Time::from_nanos(expires.saturating_mul(1_000_000_000))),
        }
    }
}

/// `page --sign-out`: the sessions that began with a link have ended.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LinkSessionsEndedJson {
    /// Their number.
    pub(crate) ended: usize,
}

impl From<LinkSessionsEnded> for LinkSessionsEndedJson {
    fn from(LinkSessionsEnded { ended }: LinkSessionsEnded) -> Self {
        LinkSessionsEndedJson { ended }
    }
}
