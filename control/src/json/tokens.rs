//! Tokens of the API.

use knockplane_policy::time::Time;
use schemars::JsonSchema;
use serde::Serialize;

use super::rfc_3339;
use crate::api::messages::TokenList;
use crate::tokens::{NewToken, Role, TokenInfo};

/// `token list`: the tokens, ordered by name.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TokensJson {
    pub(crate) tokens: Vec<TokenJson>,
}

/// A token, without its secret.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TokenJson {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The time of its creation, in the form of RFC 3339.
    pub(crate) created: String,
    /// The time at which it expires, in the form of RFC 3339.
    pub(crate) expires: String,
    /// The time of its last use, in the form of RFC 3339; `null` if it was never used.
    pub(crate) last_used: Option<String>,
}

/// `token new`: a token. No later answer contains it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct NewTokenJson {
    /// The token, for the header `Authorization: Bearer`.
    pub(crate) token: String,
    #[serde(flatten)]
    pub(crate) info: TokenJson,
}

/// `token revoke`: requests with the token are refused.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TokenRevokedJson {
    pub(crate) name: String,
}

impl From<TokenInfo> for TokenJson {
    fn from(TokenInfo { name, role, created, expires, last_used }: TokenInfo) -> Self {
        let time = |seconds: u64| rfc_3339(Time::from_nanos(seconds.saturating_mul(1_000_000_000)));
        TokenJson {
            name: name.to_string(),
            role,
            created: time(created),
            expires: time(expires),
            last_used: last_used.map(time),
        }
    }
}

impl From<TokenList> for TokensJson {
    fn from(TokenList { tokens }: TokenList) -> Self {
        TokensJson { tokens: tokens.into_iter().map(TokenJson::from).collect() }
    }
}

impl From<NewToken> for NewTokenJson {
    fn from(NewToken { token, info }: NewToken) -> Self {
        NewTokenJson { token, info: info.into() }
    }
}
