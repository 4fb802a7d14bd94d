//! `knockctl page`: a link that signs a browser in at the web page.

use clap::Args;
use hyper::Method;

use super::http::Client;
use super::output::complain;
use super::{Failed, as_json, decode, document};
use crate::api::messages::{CreateLink, LinkSessionsEnded, NewLink};
use crate::json::links::{LinkSessionsEndedJson, NewLinkJson};
use crate::sessions::LINK_VALID;
use crate::tokens::Role;

const PATH: &str = "/api/v1/session-links";

#[derive(Debug, Args)]
pub(super) struct Page {
    /// The role of the session; at most that of the socket, which is the default
    #[arg(long)]
    role: Option<Role>,
    /// Print no link, but end all sessions that began with a link, and make all links invalid
    #[arg(long, conflicts_with = "role")]
    sign_out: bool,
}

/// Runs the command.
pub(super) async fn run(client: &Client, Page { role, sign_out }: Page, json: bool) -> Result<String, Failed> {
    if sign_out {
        let ended: LinkSessionsEnded = decode(&client.send(Method::DELETE, PATH, None).await?)?;
        return match json {
            true => document(LinkSessionsEndedJson::from(ended)),
            false => Ok(format!("{} ended\n", sessions(ended.ended))),
        };
    }
    let made: NewLink = decode(&client.send(Method::POST, PATH, Some(as_json(&CreateLink { role })?)).await?)?;
    if json {
        return document(NewLinkJson::from(made));
    }
    let NewLink { page, role, uid, .. } = &made;
    complain(format_args!(
        "knockctl: the web page is at {page}; this link signs user {uid} in with the role {role}, once and within {} s\n",
        LINK_VALID.as_secs()
    ));
    Ok(made.url() + "\n")
}

fn sessions(count: usize) -> String {
    format!("{count} session{}", if count == 1 { "" } else { "s" })
}
