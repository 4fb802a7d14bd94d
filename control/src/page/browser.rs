//! Checks of the requests of browsers, and their cookie.
//!
//! A page of another origin can make a browser send requests here. `SameSite=Strict` keeps the cookie out of them. Independently,
//! each request with a cookie needs an origin of this server, and each one that is not a GET needs a header that only a page of this
//! origin can know. Without TLS, the listener is on loopback, and a name of another site could have its address (DNS rebinding): then
//! `Host` must be a name of loopback.

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, header};
use subtle::ConstantTimeEq as _;

use crate::api::failure::ApiError;

/// The header with the value that only the page knows.
pub(crate) const CSRF: &str = "x-knockplane-csrf";

/// The header of requests that a timer and not a user causes.
pub(crate) const BACKGROUND: &str = "x-knockplane-background";

/// The properties of the listener that browsers see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Browser {
    pub(crate) with_tls: bool,
}

impl Browser {
    /// The name of the cookie. A browser accepts the prefix `__Host-` over TLS alone, and then from no other host. It sends a cookie
    /// to all ports of its host, such as the forwarded ports of several filters. So the name has the port of the address.
    fn cookie_name(self, headers: &HeaderMap) -> String {
        let name = if self.with_tls { "__Host-knockplane" } else { "knockplane" };
        match port(host(headers)) {
            Some(port) => format!("{name}-{port}"),
            None => name.to_owned(),
        }
    }

    /// The secret in the cookie of a request.
    pub(crate) fn cookie(self, headers: &HeaderMap) -> Option<&str> {
        let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let wanted = self.cookie_name(headers);
        let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == wanted).map(|(_, secret)| secret)
    }

    /// The header that sets the cookie, for the host of a request with these headers.
    pub(crate) fn set_cookie(self, headers: &HeaderMap, secret: &str, seconds: u64) -> String {
        let secure = if self.with_tls { "; Secure" } else { "" };
        let name = self.cookie_name(headers);
        format!("{name}={secret}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
    }

    /// Refuses a request that a page of another origin has caused.
    pub(crate) fn check_origin(self, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
        self.check_host(headers)?;
        let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or(""));
        let site = headers.get("sec-fetch-site").map(|value| value.to_str().unwrap_or(""));
        let is_allowed = match site {
            // A user opens an address of the API.
            Some("none") => method.is_safe(),
            Some(site) => site == "same-origin",
            None => true,
        };
        let scheme = if self.with_tls { "https://" } else { "http://" };
        let is_same = text(header::ORIGIN).is_none_or(|origin| {
            let host = text(header::HOST).unwrap_or("");
            origin.strip_prefix(scheme).is_some_and(|origin| !host.is_empty() && origin.eq_ignore_ascii_case(host))
        });
        match is_allowed && is_same {
            true => Ok(()),
            false => Err(ApiError::not_from_the_page("the request comes from a page of another origin")),
        }
    }

    /// Refuses a request to a name that is not one of loopback, if the listener is on loopback.
    pub(crate) fn check_host(self, headers: &HeaderMap) -> Result<(), ApiError> {
        match self.with_tls || is_loopback(host(headers)) {
            true => Ok(()),
            false => Err(ApiError::not_from_the_page("the name of the host in the address is not one of loopback")),
        }
    }
}

/// The value of `Host`.
fn host(headers: &HeaderMap) -> &str {
    headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("")
}

/// The port in a value of `Host`. An IPv6 address is in brackets.
fn port(host: &str) -> Option<u16> {
    let (_, port) = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'))?;
    port.parse().ok()
}

/// Whether this value of `Host` names loopback: `localhost`, 127.0.0.0/8 or ::1, with any port, which may be forwarded.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(name, _)| name),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Refuses a request other than GET without the value that only a page of this origin knows.
pub(crate) fn check_csrf(method: &Method, headers: &HeaderMap, csrf: &str) -> Result<(), ApiError> {
    let sent = headers.get(CSRF).map_or(&b""[..], |value| value.as_bytes());
    match method.is_safe() || bool::from(sent.ct_eq(csrf.as_bytes())) {
        true => Ok(()),
        false => Err(ApiError::not_from_the_page("the header X-Knockplane-CSRF is missing or wrong")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn requests_of_other_origins_are_refused() {
        let (plain, tls) = (Browser { with_tls: false }, Browser { with_tls: true });
        let local = ("host", "127.0.0.1:9480");
        for (browser, method, pairs, is_allowed) in [
            (
                plain,
                Method::POST,
                vec![local, ("origin", "http://127.0.0.1:9480"), ("sec-fetch-site", "same-origin")],
                true,
            ),
            (plain, Method::POST, vec![local], true),
            (plain, Method::POST, vec![local, ("origin", "http://127.0.0.1:9481")], false),
            (plain, Method::POST, vec![local, ("origin", "https://127.0.0.1:9480")], false),
            (plain, Method::POST, vec![local, ("origin", "null")], false),
            (plain, Method::POST, vec![local, ("sec-fetch-site", "same-site")], false),
            (plain, Method::POST, vec![local, ("sec-fetch-site", "none")], false),
            (plain, Method::GET, vec![local, ("sec-fetch-site", "none")], true),
            (plain, Method::GET, vec![local, ("sec-fetch-site", "cross-site")], false),
            (plain, Method::GET, vec![("host", "evil.example:9480")], false),
            (plain, Method::GET, vec![("host", "localhost.evil.example")], false),
            (plain, Method::GET, vec![("host", "[::1]:9480")], true),
            (plain, Method::GET, vec![("host", "localhost:8080")], true),
            (plain, Method::GET, vec![], false),
            (tls, Method::POST, vec![("host", "gate.example"), ("origin", "https://gate.example")], true),
            (tls, Method::POST, vec![("host", "gate.example"), ("origin", "https://gate.example.evil.example")], false),
        ] {
            assert_eq!(browser.check_origin(&method, &headers(&pairs)).is_ok(), is_allowed, "{method} {pairs:?}");
        }
    }

    #[test]
    fn a_change_needs_the_value_of_its_session() {
        for (method, sent, is_allowed) in [
            (Method::GET, "", true),
            (Method::POST, "", false),
            (Method::DELETE, "abcd", false),
            (Method::POST, "abc", true),
        ] {
            assert_eq!(check_csrf(&method, &headers(&[(CSRF, sent)]), "abc").is_ok(), is_allowed, "{method} {sent}");
        }
        assert!(check_csrf(&Method::POST, &HeaderMap::new(), "abc").is_err());
    }

    #[test]
    fn the_cookie_is_found_among_others_and_is_for_this_host_alone() {
        let (plain, tls) = (Browser { with_tls: false }, Browser { with_tls: true });
        let sent = headers(&[("cookie", "a=b; knockplane=s1;__Host-knockplane=s2")]);
        assert_eq!((plain.cookie(&sent), tls.cookie(&sent)), (Some("s1"), Some("s2")));
        assert_eq!(plain.cookie(&headers(&[("cookie", "xknockplane=1")])), None);
        let none = HeaderMap::new();
        let cookie = tls.set_cookie(&none, "s", 7);
        assert_eq!(cookie, "__Host-knockplane=s; Path=/; Max-Age=7; HttpOnly; SameSite=Strict; Secure");
        assert_eq!(plain.set_cookie(&none, "s", 7), "knockplane=s; Path=/; Max-Age=7; HttpOnly; SameSite=Strict");
        // Two filters through forwarded ports: each has its own.
        let cookies = ("cookie", "knockplane-9480=s1; knockplane-9481=s2");
        for (host, secret) in [
            ("127.0.0.1:9480", Some("s1")),
            ("[::1]:9481", Some("s2")),
            ("localhost:9482", None),
            ("[::1]", None),
            ("::1", None),
        ] {
            let sent = headers(&[("host", host), cookies]);
            assert_eq!(plain.cookie(&sent), secret, "{host}");
        }
        let sent = headers(&[("host", "127.0.0.1:9481")]);
        assert!(plain.set_cookie(&sent, "s", 7).starts_with("knockplane-9481=s;"));
    }
}
