use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use super::*;

fn name(text: &str) -> TokenName {
    text.parse().unwrap()
}

const DAY: Duration = Duration::from_secs(86_400);

fn tokens() -> (tempfile::TempDir, Tokens) {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::load(&dir.path().join("state/tokens.json")).unwrap();
    (dir, tokens)
}

#[test]
fn a_token_is_valid_until_it_is_revoked_also_after_a_restart() {
    let (dir, tokens) = tokens();
    let made = tokens.create(name("deploy"), Role::Operate, DAY).unwrap();
    assert!(made.token.starts_with("kp_") && made.token.len() == 46 && is_token(&made.token), "{}", made.token);
    let path = dir.path().join("state/tokens.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains(&made.token) && !text.contains(&made.token[3..]), "{text}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = Tokens::load(&path).unwrap();
    let valid = again.check(&made.token).unwrap();
    assert_eq!((valid.name.as_str(), valid.role), ("deploy", Role::Operate));
    assert!(again.list()[0].last_used.is_some());
    again.write_uses();
    assert!(Tokens::load(&path).unwrap().list()[0].last_used.is_some(), "the use is stored");
    for other in ["", "kp_", &made.token[..45], &format!("{}A", made.token), &made.token.to_lowercase()] {
        assert_eq!(again.check(other), Err(TokenRefusal::Unknown), "{other}");
    }
    again.revoke("deploy").unwrap();
    assert_eq!(again.check(&made.token), Err(TokenRefusal::Unknown));
    assert_eq!(Tokens::load(&path).unwrap().list(), []);
    assert!(again.revoke("deploy").is_err_and(|error| error.to_string().contains("there is no token deploy")));
}

#[test]
fn a_token_expires_and_gives_its_name_to_another_one() {
    let (_dir, tokens) = tokens();
    let made = tokens.create(name("short"), Role::Read, Duration::from_secs(1)).unwrap();
    assert!(tokens.check(&made.token).is_ok());
    let taken = tokens.create(name("short"), Role::Read, DAY);
    assert!(taken.is_err_and(|error| error.remedy().unwrap().contains("revoke it first")));
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(tokens.check(&made.token), Err(TokenRefusal::Expired));
    let other = tokens.create(name("short"), Role::Read, DAY).unwrap();
    assert_eq!(tokens.check(&made.token), Err(TokenRefusal::Unknown));
    assert!(tokens.check(&other.token).is_ok());
}

#[test]
fn the_number_of_tokens_their_names_and_times_are_bounded() {
    let (_dir, tokens) = tokens();
    for number in 0..MAX_TOKENS {
        tokens.create(name(&format!("t{number}")), Role::Read, DAY).unwrap();
    }
    let error = tokens.create(name("one-more"), Role::Read, DAY).unwrap_err();
    assert!(error.to_string().contains("256 tokens") && error.remedy().unwrap().contains("revoke"), "{error}");
    for time in [Duration::ZERO, DAY * 10_000] {
        assert!(matches!(tokens.create(name("x"), Role::Read, time), Err(TokenError::Time)));
    }
    let long = "a".repeat(MAX_NAME + 1);
    for wrong in ["", "1", "-a", "a b", "a\n", "ä", "a/b", &long] {
        assert!(wrong.parse::<TokenName>().is_err(), "{wrong}");
    }
}

#[test]
fn a_damaged_readable_or_foreign_file_is_refused_with_a_remedy() {
    let (dir, tokens) = tokens();
    tokens.create(name("a"), Role::Read, DAY).unwrap();
    let path = dir.path().join("state/tokens.json");
    let text = fs::read_to_string(&path).unwrap();
    let refused = |remedy: &str| {
        let error = Tokens::load(&path).unwrap_err().to_string();
        assert!(error.contains("state/tokens.json") && error.contains(remedy), "{error}");
        error
    };
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    refused("chmod 600");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    let hash = text.split("\"hash\": \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(!refused("is damaged").contains(hash));
    fs::write(&path, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
    refused("version 2");
}

#[test]
fn a_failed_write_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let tokens = Tokens {
        file: TokenFile::new(&dir.path().join("file/tokens.json")),
        ..Tokens::load(&dir.path().join("x")).unwrap()
    };
    let error = tokens.create(name("a"), Role::Read, DAY).unwrap_err().to_string();
    assert!(error.contains("file/tokens.json") && error.contains("nothing changed"), "{error}");
    assert_eq!(tokens.list(), []);
}

#[tokio::test]
async fn streams_learn_of_a_revocation_and_of_the_end_of_a_token() {
    let (_dir, tokens) = tokens();
    let tokens = Arc::new(tokens);
    let made = [("a", DAY), ("b", DAY), ("c", Duration::from_secs(2))]
        .map(|(one, time)| tokens.create(name(one), Role::Read, time).unwrap());
    let waits = made.each_ref().map(|made| {
        let (tokens, valid) = (Arc::clone(&tokens), tokens.check(&made.token).unwrap());
        tokio::spawn(async move { tokens.ended(&valid).await })
    });
    tokio::task::yield_now().await;
    tokens.revoke("a").unwrap();
    let [a, b, c] = waits;
    tokio::time::timeout(Duration::from_secs(10), a).await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_secs(10), c).await.unwrap().unwrap();
    assert!(!b.is_finished());
    b.abort();
}

#[test]
fn no_debug_text_has_a_secret() {
    let (_dir, tokens) = tokens();
    let made = tokens.create(name("a"), Role::Read, DAY).unwrap();
    let text = format!("{made:?} {tokens:?}");
    assert!(!text.contains(&made.token) && !text.contains("hash"), "{text}");
}
