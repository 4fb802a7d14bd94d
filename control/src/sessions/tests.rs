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
    let NewSession { secret, session } = sessions.begin(&fixture.token("one")).unwrap();
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
    let NewSession { secret, session } = fixture.sessions.begin(&fixture.token("one")).unwrap();
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
    let NewSession { secret, session } = fixture.sessions.begin(&fixture.token("one")).unwrap();
    fixture.tokens.revoke("one").unwrap();
    assert!(fixture.sessions.check(&secret, true).is_none());
    let later = StoredSession {
        hash: session.hash,
        token: session.token.name.clone(),
        token_created: session.token.created.wrapping_sub(1),
        created: session.token.created,
        last_used: now(),
    };
    fixture.token("one");
    fixture.sessions.lock().sessions = vec![later];
    assert!(fixture.sessions.check(&secret, true).is_none());
}

#[test]
fn a_full_table_evicts_the_longest_idle_session_of_the_same_token() {
    let fixture = Fixture::new();
    let (flood, quiet) = (fixture.token("flood"), fixture.token("quiet"));
    let first = fixture.sessions.begin(&quiet).unwrap();
    let oldest = fixture.sessions.begin(&flood).unwrap();
    let template = fixture.sessions.lock().sessions[1].clone();
    for number in 0..MAX_SESSIONS as u64 - 2 {
        let mut other = template.clone();
        other.hash[..8].copy_from_slice(&number.to_be_bytes());
        other.last_used += 1;
        fixture.sessions.lock().sessions.push(other);
    }
    fixture.sessions.begin(&flood).unwrap();
    assert_eq!(fixture.sessions.lock().sessions.len(), MAX_SESSIONS);
    assert!(fixture.sessions.check(&oldest.secret, false).is_none());
    assert!(fixture.sessions.check(&first.secret, false).is_some(), "another token's session stays");
    fixture.sessions.begin(&fixture.token("third")).unwrap();
    assert_eq!(fixture.sessions.lock().sessions.len(), MAX_SESSIONS);
}

#[tokio::test]
async fn a_sign_out_ends_streams() {
    let fixture = Fixture::new();
    let NewSession { session, .. } = fixture.sessions.begin(&fixture.token("one")).unwrap();
    let ended = fixture.sessions.ended(&session);
    tokio::pin!(ended);
    let early = tokio::time::timeout(Duration::from_millis(20), &mut ended).await;
    assert!(early.is_err(), "the session has not ended");
    fixture.sessions.end(&session);
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the wait ends");
}
