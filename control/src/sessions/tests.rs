use super::*;

struct Fixture {
    dir: tempfile::TempDir,
    tokens: Arc<Tokens>,
    sessions: Sessions,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Arc::new(Tokens::load(&dir.path().join("tokens.json")).unwrap());
        let sessions = Sessions::load(&dir.path().join("sessions.json"), Arc::clone(&tokens));
        Fixture { dir, tokens, sessions }
    }

    fn token(&self, name: &str) -> ValidToken {
        let made = self.tokens.create(name.parse().unwrap(), Role::Operate, Duration::from_secs(30 * 86_400)).unwrap();
        self.tokens.check(&made.token).unwrap()
    }
}

#[test]
fn a_session_ends_when_it_is_idle_or_old_and_background_requests_are_no_use() {
    let fixture = Fixture::new();
    let sessions = &fixture.sessions;
    let NewSession { secret, session } = sessions.begin(fixture.token("one")).unwrap();
    let begun = session.expires - LONGEST.as_secs();
    let idle = IDLE.as_secs();
    assert!(sessions.check_at(&secret, false, begun + idle - 1).is_some());
    assert!(sessions.check_at(&secret, false, begun + idle).is_none(), "a background request is no use");
    let mut time = begun;
    while time + idle - 1 < session.expires {
        time += idle - 1;
        assert_eq!(sessions.check_at(&secret, true, time).unwrap(), session);
    }
    assert!(sessions.check_at(&secret, true, session.expires).is_none(), "the longest time is over");
}

#[test]
fn a_restart_keeps_sessions_and_the_file_has_no_secret() {
    let fixture = Fixture::new();
    let NewSession { secret, session } = fixture.sessions.begin(fixture.token("one")).unwrap();
    let path = fixture.dir.path().join("sessions.json");
    let stored = std::fs::read_to_string(&path).unwrap();
    assert!(!stored.contains(&secret) && !stored.contains(&session.csrf), "{stored}");
    let again = Sessions::load(&path, Arc::clone(&fixture.tokens));
    assert_eq!(again.check(&secret, true).unwrap(), session);
    again.end(&session);
    assert!(again.check(&secret, true).is_none());
    assert!(Sessions::load(&path, Arc::clone(&fixture.tokens)).check(&secret, true).is_none(), "signed out for good");
}

#[test]
fn a_session_ends_with_its_token_and_a_new_token_of_the_same_name_does_not_restore_it() {
    let fixture = Fixture::new();
    let NewSession { secret, session } = fixture.sessions.begin(fixture.token("one")).unwrap();
    fixture.tokens.revoke("one").unwrap();
    assert!(fixture.sessions.check(&secret, true).is_none());
    let later = fixture.token("one");
    for (created, is_valid) in [(later.created - 1, false), (later.created, true)] {
        let rights = Rights::Token(ValidToken { created, ..later.clone() });
        let kept = Session { hash: session.hash, rights, created: now(), last_used: now() };
        fixture.sessions.lock().sessions = vec![kept];
        assert_eq!(fixture.sessions.check(&secret, true).is_some(), is_valid);
    }
}

#[test]
fn a_full_table_evicts_the_longest_idle_session_of_the_same_token() {
    let fixture = Fixture::new();
    let (flood, quiet) = (fixture.token("flood"), fixture.token("quiet"));
    let first = fixture.sessions.begin(quiet).unwrap();
    let oldest = fixture.sessions.begin(flood.clone()).unwrap();
    let template = fixture.sessions.lock().sessions[1].clone();
    for number in 0..MAX_SESSIONS as u64 - 2 {
        let mut other = template.clone();
        other.hash[..8].copy_from_slice(&number.to_be_bytes());
        other.last_used += 1;
        fixture.sessions.lock().sessions.push(other);
    }
    fixture.sessions.begin(flood).unwrap();
    assert_eq!(fixture.sessions.lock().sessions.len(), MAX_SESSIONS);
    assert!(fixture.sessions.check(&oldest.secret, false).is_none());
    assert!(fixture.sessions.check(&first.secret, false).is_some(), "another token's session stays");
    fixture.sessions.begin(fixture.token("third")).unwrap();
    assert_eq!(fixture.sessions.lock().sessions.len(), MAX_SESSIONS);
}

#[tokio::test]
async fn a_sign_out_ends_streams() {
    let fixture = Fixture::new();
    let NewSession { session, .. } = fixture.sessions.begin(fixture.token("one")).unwrap();
    let ended = fixture.sessions.ended(&session);
    tokio::pin!(ended);
    let early = tokio::time::timeout(Duration::from_millis(20), &mut ended).await;
    assert!(early.is_err(), "the session has not ended");
    fixture.sessions.end(&session);
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the wait ends");
}

#[test]
fn a_link_begins_one_session_which_a_restart_ends() {
    let fixture = Fixture::new();
    let sessions = &fixture.sessions;
    let link = sessions.make_link(1000, Role::Operate).unwrap();
    let other = sessions.make_link(1000, Role::Read).unwrap();
    assert!(sessions.check(&link, true).is_none(), "a link is no session");
    let NewSession { secret, session } = sessions.begin_with_link(&link).unwrap().unwrap();
    assert_eq!(session.rights, Rights::User { uid: 1000, role: Role::Operate });
    assert!(sessions.begin_with_link(&link).unwrap().is_none(), "used");
    assert!(sessions.begin_with_link(&secret).unwrap().is_none(), "a session is no link");
    assert_eq!(sessions.check(&secret, true).unwrap(), session);
    // A write by a session of a token does not store it.
    let by_token = sessions.begin(fixture.token("one")).unwrap();
    let again = Sessions::load(&fixture.dir.path().join("sessions.json"), Arc::clone(&fixture.tokens));
    assert!(again.check(&by_token.secret, true).is_some());
    assert!(again.check(&secret, true).is_none());
    assert!(again.begin_with_link(&other).unwrap().is_none());
}

#[tokio::test]
async fn an_operator_ends_all_sessions_by_link_with_their_streams_and_all_links() {
    let fixture = Fixture::new();
    let sessions = &fixture.sessions;
    let by_token = sessions.begin(fixture.token("one")).unwrap();
    let link = |uid| sessions.make_link(uid, Role::Administer).unwrap();
    let [first, second] = [1, 2].map(|uid| sessions.begin_with_link(&link(uid)).unwrap().unwrap());
    let unused = link(1);
    let ended = sessions.ended(&first.session);
    tokio::pin!(ended);
    let early = tokio::time::timeout(Duration::from_millis(20), &mut ended).await;
    assert!(early.is_err(), "the session has not ended");
    assert_eq!(sessions.end_links(), 2);
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the wait ends");
    for NewSession { secret, .. } in [&first, &second] {
        assert!(sessions.check(secret, true).is_none());
    }
    assert!(sessions.begin_with_link(&unused).unwrap().is_none());
    assert!(sessions.check(&by_token.secret, true).is_some());
    assert_eq!(sessions.end_links(), 0);
}
