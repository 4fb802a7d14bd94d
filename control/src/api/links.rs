//! Requests about links that sign in at the web page. They need a unix socket: a token that leaks cannot make a link, which would
//! outlive it.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::Response;
use axum::{Extension, Json};

use super::answer::Form;
use super::failure::ApiError;
use super::messages::{CreateLink, LinkSessionsEnded, NewLink};
use super::operator::{Access, Operator};
use super::{App, WebPage};
use crate::events::change::{OperatorAction, OperatorChange};
use crate::json::links::{LinkSessionsEndedJson, NewLinkJson};
use crate::sessions::LINK_VALID;

/// The page, and the user of this host who sends the request.
fn page<'app>(app: &'app App, operator: &Operator) -> Result<(&'app WebPage, u32), ApiError> {
    if matches!(operator, Operator::Token(_) | Operator::Session(_)) {
        return Err(ApiError::links_are_of_the_socket());
    }
    let page = app.web_page.as_ref().ok_or_else(|| ApiError::page_is_off("the web page is off"))?;
    let uid = operator.uid().ok_or_else(|| ApiError::internal(&"the peer of the socket has no user id"))?;
    Ok((page, uid))
}

/// `POST /api/v1/session-links`.
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    form: Form,
    body: Result<Json<CreateLink>, JsonRejection>,
) -> Result<Response, ApiError> {
    let (WebPage { sessions, address }, uid) = page(&app, &access.operator)?;
    let role = body?.0.role.unwrap_or(access.role);
    if role > access.role {
        return Err(ApiError::above_the_socket(role, access.role));
    }
    let made = sessions.make_link(uid, role);
    let change = OperatorChange::of(OperatorAction::LinkCreate, access.operator.recorded());
    app.events.record(OperatorChange { subject: Some(role.to_string()), ..change.ended(&made) });
    let secret = made.map_err(|error| ApiError::internal(&error))?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let expires = (since + LINK_VALID).as_secs();
    Ok(form.answer(NewLink { page: address.clone(), secret, role, uid, expires }, NewLinkJson::from))
}

/// `DELETE /api/v1/session-links`.
pub(super) async fn end(State(app): State<Arc<App>>, operator: Operator, form: Form) -> Result<Response, ApiError> {
    let (WebPage { sessions, .. }, _) = page(&app, &operator)?;
    let ended = sessions.end_links();
    let change = OperatorChange::of(OperatorAction::SignOut, operator.recorded());
    app.events.record(OperatorChange { number: Some(ended as u64), ..change });
    Ok(form.answer(LinkSessionsEnded { ended }, LinkSessionsEndedJson::from))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::Router;
    use axum::http::{Method, StatusCode};
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{UnixListener, UnixStream};

    use super::*;
    use crate::api::sessions::tests::Page;
    use crate::api::{read_only, whole};
    use crate::server::{Server, Sizes, Times};
    use crate::tokens::Role;

    fn own_uid() -> u32 {
        rustix::process::getuid().as_raw()
    }

    /// Sends a request over a real unix socket, whose peer has a user id.
    async fn at_socket(page: &Page, router: Router, method: &str, body: &str) -> (u16, Value) {
        let path = page.dir.path().join("control.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let limits = Sizes::within(1024).operators;
        let server = Server { name: "test", limits, times: Times::OPERATORS, refusals: Arc::default(), tls: None };
        tokio::spawn(server.run(listener, router, pending()));
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let head = "Host: knockplane\r\nConnection: close\r\nContent-Type: application/json";
        let request = format!(
            "{method} /api/v1/session-links HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
    }

    async fn link(page: &Page, body: &str) -> String {
        let (status, made) = at_socket(page, whole(page.app.clone()), "POST", body).await;
        assert_eq!((status, &made["uid"]), (200, &json!(own_uid())), "{made}");
        let link = made["link"].as_str().unwrap();
        let secret = link.strip_prefix("http://127.0.0.1:9480/#link=").unwrap_or_else(|| panic!("{link}"));
        assert_eq!(secret.len(), 43);
        secret.to_owned()
    }

    /// Signs in with a link. Returns the status, the cookie and the body.
    async fn sign_in(page: &Page, link: &str) -> (StatusCode, String, Value) {
        let body = json!({ "link": link }).to_string();
        let (status, headers, body) = page.send(Method::POST, "/api/v1/session", &[], &body).await;
        let cookie = headers.get("set-cookie").and_then(|cookie| cookie.to_str().ok()).unwrap_or_default();
        (status, cookie.split(';').next().unwrap().to_owned(), serde_json::from_str(&body).unwrap())
    }

    #[tokio::test]
    async fn a_link_of_a_user_begins_one_session_with_its_role() {
        let page = Page::new();
        let secret = link(&page, "{\"role\": \"operate\"}").await;
        let (status, cookie, session) = sign_in(&page, &secret).await;
        let name = format!("user {}", own_uid());
        assert_eq!((status, &session["name"], &session["role"]), (StatusCode::OK, &json!(name), &json!("operate")));
        let with = [("cookie", &*cookie), ("x-knockplane-csrf", session["csrf"].as_str().unwrap())];
        let (status, _, body) = page.send(Method::POST, "/api/v1/reload", &with, "").await;
        let refusal = format!("{name} has the role `operate` in this session, and this request needs `administer`");
        assert!(status == StatusCode::FORBIDDEN && body.contains(&refusal), "{body}");
        for (again, token) in [(secret.as_str(), "link"), ("wrong", "link"), (&secret, "token")] {
            let body = json!({ token: again }).to_string();
            let (status, headers, body) = page.send(Method::POST, "/api/v1/session", &[], &body).await;
            assert_eq!((status, headers.get("set-cookie")), (StatusCode::UNAUTHORIZED, None), "{body}");
            assert_eq!(token == "link", body.contains("was used already, or is older than 60 s: run `knockctl page`"));
        }
        for (body, expected) in [
            ("{}", StatusCode::BAD_REQUEST),
            ("{\"link\": \"a\", \"token\": \"b\"}", StatusCode::BAD_REQUEST),
            ("{\"link\": 1}", StatusCode::UNPROCESSABLE_ENTITY),
            ("{\"role\": \"read\"}", StatusCode::UNPROCESSABLE_ENTITY),
        ] {
            let (status, ..) = page.send(Method::POST, "/api/v1/session", &[], body).await;
            assert_eq!(status, expected, "{body}");
        }
    }

    #[tokio::test]
    async fn wrong_links_are_limited_as_wrong_tokens_are() {
        let page = Page::new();
        let secret = link(&page, "{}").await;
        for _ in 0..10 {
            assert_eq!(sign_in(&page, "wrong").await.0, StatusCode::UNAUTHORIZED);
        }
        assert_eq!(sign_in(&page, "wrong").await.0, StatusCode::TOO_MANY_REQUESTS);
        let (status, _, session) = sign_in(&page, &secret).await;
        assert_eq!((status, &session["role"]), (StatusCode::OK, &json!("administer")), "a valid link is not affected");
    }

    #[tokio::test]
    async fn a_link_has_no_role_above_that_of_its_socket_and_none_is_made_elsewhere() {
        let page = Page::new();
        let reader = async |body: &str| at_socket(&page, read_only(page.app.clone()), "POST", body).await;
        for role in [Role::Operate, Role::Administer] {
            let wanted = json!({ "role": role }).to_string();
            let (status, body) = reader(&wanted).await;
            assert_eq!((status, &body["code"]), (403, &json!("forbidden")), "{body}");
        }
        let (status, body) = reader("{}").await;
        assert_eq!((status, &body["role"]), (200, &json!("read")));
        assert_eq!(at_socket(&page, read_only(page.app.clone()), "DELETE", "").await.0, 403);
        // Over TCP.
        let token = format!("Bearer {}", page.token(Role::Administer));
        let (_, cookie, session) = sign_in(&page, &link(&page, "{}").await).await;
        let with_session = [("cookie", &*cookie), ("x-knockplane-csrf", session["csrf"].as_str().unwrap())];
        for headers in [&[("authorization", &*token)][..], &with_session] {
            for method in [Method::POST, Method::DELETE] {
                let (status, _, body) = page.send(method, "/api/v1/session-links", headers, "{}").await;
                assert!(status == StatusCode::FORBIDDEN && body.contains("run `knockctl page` on the host"), "{body}");
            }
        }
        let off = App::new(page.app.dataplane.clone(), Default::default(), Default::default());
        let (status, body) = at_socket(&page, whole(off.into()), "POST", "{}").await;
        assert_eq!((status, &body["code"]), (409, &json!("conflict")), "{body}");
        assert!(body["remedy"].as_str().unwrap().starts_with("set `page = true` in [control.api]"), "{body}");
    }

    #[tokio::test]
    async fn an_operator_ends_all_sessions_by_link() {
        let page = Page::new();
        let (_, cookie, _) = sign_in(&page, &link(&page, "{}").await).await;
        let unused = link(&page, "{}").await;
        let get = async || page.send(Method::GET, "/api/v1/openapi.json", &[("cookie", &*cookie)], "").await.0;
        assert_eq!(get().await, StatusCode::OK);
        let (status, body) = at_socket(&page, whole(page.app.clone()), "DELETE", "").await;
        assert_eq!((status, &body["ended"]), (200, &json!(1)), "{body}");
        assert_eq!(get().await, StatusCode::UNAUTHORIZED);
        assert_eq!(sign_in(&page, &unused).await.0, StatusCode::UNAUTHORIZED);
    }
}
