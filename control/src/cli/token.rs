//! `knockctl token`: creates, shows and revokes tokens for the API on TCP.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use hyper::Method;
use jiff::Timestamp;

use super::http::Client;
use super::output::complain;
use super::table::Align::Left;
use super::table::Columns;
use super::{Failed, as_json, decode, document, encoded, parse_timeout};
use crate::api::messages::{CreateToken, TokenList};
use crate::json::tokens::{NewTokenJson, TokenRevokedJson, TokensJson};
use crate::tokens::{NewToken, Role, TokenInfo, TokenName};

const PATH: &str = "/api/v1/tokens";

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a token, and print it; it cannot be shown again
    New {
        /// Its name, for the history, the log and `token revoke`
        name: TokenName,
        /// read: requests that change nothing; operate: also lists, connections, traces, watches, counters and confirmations;
        /// administer: also apply and reload
        #[arg(long)]
        role: Role,
        /// The time for which it is valid, such as 90d
        #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
        expires: String,
    },
    /// Show the tokens, without their secrets
    List,
    /// Revoke a token: it is refused from now on, and its open streams end
    Revoke {
        /// Its name
        name: String,
    },
}

/// Runs the command.
pub(super) async fn run(client: &Client, command: Command, json: bool) -> Result<String, Failed> {
    match command {
        Command::New { name, role, expires } => {
            let body = as_json(&CreateToken { name, role, expires })?;
            let made: NewToken = decode(&client.send(Method::POST, PATH, Some(body)).await?)?;
            if json {
                return document(NewTokenJson::from(made));
            }
            let TokenInfo { name, role, expires, .. } = &made.info;
            complain(format_args!(
                "knockctl: token {name} has the role {role} until {}; keep it in a file of mode 600, because it is not shown \
                 again\n",
                time(*expires)
            ));
            Ok(made.token + "\n")
        }
        Command::List => {
            let list: TokenList = decode(&client.get(PATH).await?)?;
            if json { document(TokensJson::from(list)) } else { Ok(text(&list, now())) }
        }
        Command::Revoke { name } => {
            client.send(Method::DELETE, &format!("{PATH}/{}", encoded(&name)), None).await?;
            if json { document(TokenRevokedJson { name }) } else { Ok(format!("token {name} is revoked\n")) }
        }
    }
}

fn text(TokenList { tokens }: &TokenList, now: u64) -> String {
    if tokens.is_empty() {
        return "there are no tokens\n".to_owned();
    }
    let columns = [("NAME", Left), ("ROLE", Left), ("CREATED", Left), ("EXPIRES", Left), ("LAST USE", Left)];
    let mut table = Columns::new(&columns);
    for TokenInfo { name, role, created, expires, last_used } in tokens {
        let over = if *expires <= now { ", expired" } else { "" };
        table.row([
            name.to_string(),
            role.to_string(),
            time(*created),
            format!("{}{over}", time(*expires)),
            last_used.map_or_else(|| "never".to_owned(), time),
        ]);
    }
    table.text()
}

/// A time to the second, in UTC.
fn time(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.unwrap_or(Timestamp::MAX).strftime("%FT%TZ").to_string()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_shows_expired_tokens_and_last_uses() {
        let token = |name: &str, expires, last_used| TokenInfo {
            name: name.parse().unwrap(),
            role: Role::Operate,
            created: 0,
            expires,
            last_used,
        };
        let list = TokenList { tokens: vec![token("a", 86_400, None), token("b", 1_000_000, Some(100_000))] };
        let text = text(&list, 500_000);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].contains("1970-01-02T00:00:00Z, expired") && lines[1].ends_with("never"), "{text}");
        assert!(lines[2].starts_with("b ") && lines[2].ends_with("1970-01-02T03:46:40Z"), "{text}");
        assert!(!lines[2].contains("expired"));
    }
}
