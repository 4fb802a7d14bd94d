//! The API on TCP and the read-only socket: roles, tokens, certificates, limits, and answers as the OpenAPI document describes them.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use knockplane_limits::descriptors;
use knockplane_tests::{Filter, FilterOptions, Folder, Output, Topology, binary, run};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::scenario::{PATIENCE, QUICK, eventually, with};

const PORT: u16 = 9480;

/// An authority, and the files of a server that it has signed.
struct Authority {
    folder: Folder,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let folder = Folder::make(&format!("{name}-{}", std::process::id())).expect("a folder");
        let mut params = CertificateParams::new(Vec::new()).expect("valid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate whose subject is its issuer for self-signed.
        params.distinguished_name.push(DnType::CommonName, "an authority of a test");
        let key = KeyPair::generate().expect("a key");
        fs::write(folder.0.join("ca.pem"), params.self_signed(&key).expect("signed").pem()).expect("written");
        let authority = Authority { folder, issuer: Issuer::new(params, key) };
        authority.sign("server");
        authority
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.0.join(file)
    }

    /// Writes a certificate and its key.
    fn sign(&self, name: &str) {
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("valid");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        write_private(&self.path(&format!("{name}.key")), &key.serialize_pem());
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).expect("written");
    }

    /// The options of a filter with the API, and further lines for `[control.api]`.
    fn options(&self, api: &str) -> FilterOptions {
        let at = self.folder.0.display();
        let sections = format!(
            "read-socket = \"{at}/read.sock\"\n[control.api]\nlisten = \"127.0.0.1:{PORT}\"\ntokens = \"{at}/tokens.json\"\n\
             certificate = \"{at}/server.pem\"\nkey = \"{at}/server.key\"\n{api}"
        );
        FilterOptions { sections, ..FilterOptions::from_rules(QUICK) }
    }

    /// Creates a token, and writes it to a file with its name.
    fn token(&self, filter: &Filter<'_>, name: &str, role: &str, expires: &str) -> String {
        let made = filter.knockctl(&["token", "new", name, "--role", role, "--expires", expires]).expect("knockctl");
        assert!(made.ok() && made.stdout.starts_with("kp_"), "{made:?}");
        write_private(&self.path(name), &made.stdout);
        made.stdout.trim().to_owned()
    }

    /// Runs `knockctl --api` with the token of this name, in the namespace of the filter.
    fn knockctl(&self, topology: &Topology, token: &str, arguments: &[&str]) -> Output {
        let mut command = topology.filter.command(binary("knockctl").expect("built"));
        command.args(["--api", &format!("https://127.0.0.1:{PORT}"), "--ca"]).arg(self.path("ca.pem"));
        command.arg("--token-file").arg(self.path(token)).args(arguments);
        run(&mut command).expect("knockctl")
    }

    /// The status and the JSON of a request with this token.
    fn request(&self, topology: &Topology, token: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut command = topology.filter.command("curl");
        command.args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--write-out",
            "\n%{http_code}",
            "--request",
            method,
        ]);
        command.arg("--cacert").arg(self.path("ca.pem")).args(["--header", &format!("Authorization: Bearer {token}")]);
        if let Some(body) = body {
            command.args(["--header", "Content-Type: application/json", "--data", &body.to_string()]);
        }
        let output = run(command.arg(format!("https://127.0.0.1:{PORT}{path}"))).expect("curl");
        assert!(output.ok(), "{output:?}");
        let (body, status) = output.stdout.rsplit_once('\n').unwrap_or_else(|| panic!("{output:?}"));
        let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body).expect("JSON") };
        (status.parse().expect("a status"), body)
    }
}

fn write_private(file: &Path, text: &str) {
    fs::write(file, text).expect("written");
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("set");
}

#[test]
fn a_token_does_what_its_role_includes_and_history_and_log_have_its_name() {
    let authority = Authority::new("kp-api-roles");
    with(&authority.options(""), |topology, filter| {
        let secrets =
            ["read", "operate", "administer"].map(|role| authority.token(filter, &format!("my-{role}"), role, "1d"));
        let rules = authority.path("rules.rsc");
        fs::write(&rules, format!("{QUICK}add action=accept chain=input protocol=icmp\n")).expect("written");
        let rules = rules.display().to_string();
        let needs: [(&[&str], usize); 6] = [
            (&["show", "status"], 0),
            (&["explain-source", "198.51.100.7"], 0),
            (&["list", "add", "secured", "198.51.100.7", "--timeout", "10m"], 1),
            (&["rule", "reset-counters"], 1),
            (&["apply", &rules], 2),
            (&["reload"], 2),
        ];
        for (arguments, needed) in needs {
            for (place, role) in ["my-read", "my-operate", "my-administer"].into_iter().enumerate() {
                let before = filter.ask(&["history"]).expect("the history");
                let output = authority.knockctl(topology, role, arguments);
                assert_eq!(output.ok(), place >= needed, "{role} {arguments:?}: {output:?}");
                if place < needed {
                    assert!(output.stderr.contains(&format!("the token {role} has the role")), "{output:?}");
                    assert_eq!(filter.ask(&["history"]).expect("the history"), before);
                }
            }
        }
        let history = filter.ask(&["history"]).expect("the history");
        let last = history["revisions"].as_array().expect("revisions").last().expect("one").clone();
        assert_eq!((&last["token"], &last["uid"]), (&json!("my-administer"), &Value::Null), "{last}");
        let table = filter.knockctl(&["history"]).expect("knockctl").stdout;
        assert!(table.contains(" my-administer "), "{table}");
        let log = filter.log();
        for line in ["rules applied", "configuration reloaded", "entry added", "counters of rules reset"] {
            let said =
                log.lines().filter(|text| text.contains(line)).any(|text| text.contains("operator.by.token=\"my-"));
            assert!(said, "{line}:\n{log}");
        }
        let administering = authority.knockctl(topology, "my-administer", &["token", "list"]);
        assert!(administering.stderr.contains("without --api"), "{administering:?}");
        let listed = filter.knockctl(&["token", "list"]).expect("knockctl").stdout;
        let stored = fs::read_to_string(authority.path("tokens.json")).expect("the file");
        let hashes = stored.split('"').filter(|word| word.len() == 64);
        for secret in secrets.iter().map(String::as_str).chain(hashes) {
            assert!(!log.contains(secret) && !listed.contains(secret) && !table.contains(secret));
            assert!(!fs::read_to_string(filter.path("state/history.state")).unwrap_or_default().contains(secret));
        }
        assert!(!listed.contains("never"), "{listed}");
        let mode = fs::metadata(authority.path("tokens.json")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    });
}

#[test]
fn a_revoked_expired_or_unknown_token_is_refused_also_after_a_restart() {
    let authority = Authority::new("kp-api-ends");
    with(&authority.options(""), |topology, filter| {
        let get = |token: &str| authority.request(topology, token, "GET", "/api/v1/status", None);
        let kept = authority.token(filter, "kept", "read", "1d");
        let revoked = authority.token(filter, "revoked", "read", "1d");
        let short = authority.token(filter, "short", "read", "4s");
        for token in [&kept, &revoked, &short] {
            assert_eq!(get(token).0, 200);
        }
        assert!(filter.knockctl(&["token", "revoke", "revoked"]).expect("knockctl").ok());
        eventually("the token expires", || get(&short).0 == 401);
        filter.control.kill().expect("killed");
        filter.restart_control().expect("it starts");
        assert_eq!(get(&kept).0, 200);
        for (token, reason) in [(revoked.as_str(), "revoked"), (&short, "expired"), ("kp_nothing", "unknown")] {
            let (status, answer) = get(token);
            assert_eq!((status, &answer["code"]), (401, &json!("unauthenticated")), "{answer}");
            assert!(answer["message"].as_str().expect("a message").contains(reason), "{answer}");
            assert!(answer["remedy"].as_str().expect("a remedy").contains("knockctl token new"), "{answer}");
        }
        let listed = filter.knockctl(&["token", "list"]).expect("knockctl").stdout;
        assert!(listed.contains("short") && listed.contains(", expired") && !listed.contains("revoked"), "{listed}");
        assert_eq!(filter.knockctl(&["token", "revoke", "revoked"]).expect("knockctl").code, Some(1));
    });
}

#[test]
fn the_read_only_socket_reads_and_changes_nothing() {
    const GROUP: u32 = 4_712;
    let authority = Authority::new("kp-api-read");
    let mut options = authority.options("");
    options.sections = format!("read-socket-group = {GROUP}\n{}", options.sections);
    with(&options, |_, filter| {
        let socket = authority.path("read.sock");
        let knockctl = |arguments: &[&str]| {
            run(Command::new(binary("knockctl").expect("built")).arg("--socket").arg(&socket).args(arguments))
                .expect("knockctl")
        };
        for shown in [&["show", "status"][..], &["show", "rules"], &["history"], &["show", "lists"]] {
            assert!(knockctl(shown).ok(), "{shown:?}");
        }
        let before = filter.ask(&["show", "rules"]).expect("rules")["generation"].clone();
        for change in [
            &["reload"][..],
            &["list", "add", "secured", "192.0.2.1"],
            &["confirm"],
            &["cancel"],
            &["rule", "remove", "0", "--force"],
            &["token", "list"],
        ] {
            let output = knockctl(change);
            assert!(
                !output.ok() && output.stderr.contains("this socket has the role `read`"),
                "{change:?}: {output:?}"
            );
        }
        assert_eq!(filter.ask(&["show", "rules"]).expect("rules")["generation"], before);
        let metadata = fs::metadata(&socket).expect("a socket");
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!((metadata.gid(), metadata.mode() & 0o777), (GROUP, 0o660));
    });
}

#[test]
fn a_renewed_certificate_is_used_and_an_invalid_one_is_not() {
    let (authority, other) = (Authority::new("kp-api-old"), Authority::new("kp-api-new"));
    with(&authority.options(""), |topology, filter| {
        authority.token(filter, "reader", "read", "1d");
        fs::copy(authority.path("reader"), other.path("reader")).expect("copied");
        let trusts = |authority: &Authority| authority.knockctl(topology, "reader", &["show", "status"]);
        assert!(trusts(&authority).ok());
        let refused = trusts(&other);
        assert!(refused.code == Some(4) && refused.stderr.contains("--ca"), "{refused:?}");
        let rejected = ["peer=\"loopback\"", "reason=\"rejected\""];
        let handshakes =
            || filter.metric("knockplane_control_api_handshake_failures_total", &rejected).expect("a counter");
        eventually("the client's refusal is counted", || handshakes() > 0.0);
        let failures = || filter.metric("knockplane_control_api_certificate_failures_total", &[]).expect("a counter");
        fs::write(authority.path("server.pem"), "damaged").expect("written");
        eventually("the damage is counted", || failures() > 0.0);
        assert!(filter.log().contains("the old one remains in use"), "{}", filter.log());
        assert!(trusts(&authority).ok());
        for file in ["server.key", "server.pem"] {
            fs::copy(other.path(file), authority.path(file)).expect("copied");
        }
        eventually("the new certificate is used", || trusts(&other).ok());
        assert!(!trusts(&authority).ok());
    });
}

#[test]
fn with_a_client_authority_a_token_alone_does_not_suffice() {
    let authority = Authority::new("kp-api-clients");
    authority.sign("client");
    let ca = format!("client-ca = \"{}\"\n", authority.path("ca.pem").display());
    with(&authority.options(&ca), |topology, filter| {
        authority.token(filter, "reader", "read", "1d");
        let without = authority.knockctl(topology, "reader", &["show", "status"]);
        assert_eq!(without.code, Some(4), "{without:?}");
        (0..20).for_each(|_| assert!(!authority.knockctl(topology, "reader", &["show", "status"]).ok()));
        let mut plain =
            topology.filter.within(|| Ok(TcpStream::connect(("127.0.0.1", PORT))?)).expect("it is accepted");
        plain.write_all(b"GET /api/v1/status HTTP/1.1\r\n\r\n").expect("sent");
        let failures = |reason: &str| {
            let reason = format!("reason=\"{reason}\"");
            let labels = ["peer=\"loopback\"", &*reason];
            filter.metric("knockplane_control_api_handshake_failures_total", &labels).expect("a counter")
        };
        eventually("they are counted", || failures("certificate") == 21.0 && failures("protocol") == 1.0);
        let log = filter.log();
        for reason in ["certificate", "protocol"] {
            let line =
                |line: &&str| line.contains(" WARN TLS handshakes") && line.contains(&format!("reason=\"{reason}\""));
            assert_eq!(log.lines().filter(line).count(), 1, "a line in a while: {log}");
        }
        let [certificate, key] = ["client.pem", "client.key"].map(|file| authority.path(file).display().to_string());
        let arguments = ["--client-certificate", &certificate, "--client-key", &key, "show", "status"];
        let with = authority.knockctl(topology, "reader", &arguments);
        assert!(with.ok(), "{with:?}");
    });
}

#[test]
fn a_start_without_tls_off_loopback_or_with_a_wrong_certificate_is_refused() {
    let (authority, other) = (Authority::new("kp-api-start"), Authority::new("kp-api-other"));
    let at = authority.folder.0.display();
    let start = |api: &str| {
        let file = authority.path("knockplane.toml");
        let text = format!(
            "[control]\nlisten = \"127.0.0.1:0\"\nsocket = \"{at}/c.sock\"\n[control.api]\ntokens = \"{at}/t.json\"\n{api}"
        );
        write_private(&file, &text);
        run(Command::new(binary("knockplane-control").expect("built")).arg("--config").arg(&file)).expect("it ends")
    };
    let plain = start("listen = \"0.0.0.0:9480\"\n");
    assert!(
        plain.code == Some(3) && plain.stderr.contains("without TLS the API listens on loopback only"),
        "{plain:?}"
    );
    let key = other.path("server.key");
    let mixed =
        start(&format!("listen = \"127.0.0.1:0\"\ncertificate = \"{at}/server.pem\"\nkey = \"{}\"\n", key.display()));
    assert!(mixed.code == Some(3) && mixed.stderr.contains("does not belong to the key"), "{mixed:?}");
    let missing = start("listen = \"127.0.0.1:0\"\ncertificate = \"/nonexistent.pem\"\nkey = \"/nonexistent.key\"\n");
    assert!(missing.code == Some(3) && missing.stderr.contains("/nonexistent.pem"), "{missing:?}");
    fs::write(authority.path("t.json"), "{").expect("written");
    fs::set_permissions(authority.path("t.json"), fs::Permissions::from_mode(0o600)).expect("set");
    let damaged = start("listen = \"127.0.0.1:0\"\n");
    assert!(damaged.code == Some(3) && damaged.stderr.contains("t.json is damaged"), "{damaged:?}");
}

#[test]
fn a_thousand_connections_and_requests_without_an_end_affect_no_other_client() {
    let authority = Authority::new("kp-api-flood");
    with(&authority.options(""), |topology, filter| {
        descriptors::raise();
        let token = authority.token(filter, "reader", "read", "1d");
        let connect =
            || topology.filter.within(|| Ok(TcpStream::connect(("127.0.0.1", PORT))?)).expect("it is accepted");
        let _idle: Vec<_> = (0..1_000).map(|_| connect()).collect();
        // The start of a handshake that never goes on.
        let mut slow: Vec<_> = (0..200).map(|_| connect()).collect();
        for stream in &mut slow {
            let _ = stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]);
        }
        // Requests whose body never ends.
        let url = format!("https://127.0.0.1:{PORT}/api/v1/kernel");
        let mut endless = Vec::new();
        for _ in 0..10 {
            let mut command = topology.filter.command("curl");
            command.args(["--silent", "--max-time", "30", "--limit-rate", "10", "--request", "POST"]);
            command.args(["--header", "Transfer-Encoding: chunked", "--header", "Content-Type: application/json"]);
            command
                .args(["--header", &format!("Authorization: Bearer {token}")])
                .arg("--cacert")
                .arg(authority.path("ca.pem"));
            command.arg("--upload-file").arg("/dev/zero").arg(&url);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            endless.push(command.spawn().expect("curl"));
        }
        thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        assert!(authority.knockctl(topology, "reader", &["show", "status"]).ok());
        assert!(filter.knockctl(&["show", "status"]).expect("knockctl").ok());
        assert!(filter.http("/readyz").is_ok());
        let reading = authority.path("read.sock").display().to_string();
        let mut read = Command::new(binary("knockctl").expect("built"));
        assert!(run(read.args(["--socket", &reading, "show", "status"])).expect("knockctl").ok());
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        let evicted =
            filter.metric("knockplane_control_connections_refused_total", &["listener=\"api\"", "\"evicted\""]);
        assert!(evicted.expect("a counter") > 900.0);
        for mut curl in endless {
            let _ = curl.kill();
            let _ = curl.wait();
        }
    });
}

#[test]
fn the_removal_of_an_entry_that_has_ended_has_a_code_of_its_own() {
    let authority = Authority::new("kp-api-entries");
    with(&authority.options(""), |topology, filter| {
        let token = authority.token(filter, "helpdesk", "operate", "1d");
        let added = filter.knockctl(&["list", "add", "office", "192.0.2.0/24"]).expect("knockctl");
        assert!(added.ok(), "{added:?}");
        let remove = |entry: &str| {
            let path = format!("/api/v1/lists/{}", entry.replace("/24", "%2F24"));
            let (status, answer) = authority.request(topology, &token, "DELETE", &path, None);
            (status, answer["code"].clone())
        };
        assert_eq!(remove("office/192.0.2.7"), (422, json!("refused")), "it is within another entry");
        assert_eq!(remove("office/192.0.2.0/24"), (204, Value::Null));
        assert_eq!(remove("office/192.0.2.0/24"), (404, json!("no-entry")));
        assert_eq!(remove("nowhere/192.0.2.7"), (404, json!("no-entry")));
        let again = filter.knockctl(&["list", "remove", "office", "192.0.2.7"]).expect("knockctl");
        assert!(again.code == Some(1) && again.stderr.contains("is not in the list office"), "{again:?}");
    });
}

/// Each answer of the real processes has the form that the document describes.
#[test]
fn answers_are_those_of_the_openapi_document() {
    let authority = Authority::new("kp-api-document");
    with(&authority.options(""), |topology, filter| {
        let token = authority.token(filter, "all", "administer", "1d");
        let ask =
            |method: &str, path: &str, body: Option<Value>| authority.request(topology, &token, method, path, body);
        let (status, document) = ask("GET", "/api/v1/openapi.json", None);
        assert_eq!(status, 200);
        let sample = json!({ "time": "1s", "packets": 10 });
        let running = filter.ask(&["show", "rules"]).expect("rules");
        let order = format!("?order={}", running["order"].as_str().expect("an order"));
        let cases = [
            ("POST", "/api/v1/lists/{list}", "office", Some(json!({ "address": "192.0.2.7", "timeout": "1h" }))),
            ("POST", "/api/v1/lists", "", Some(json!({ "entries": [{ "list": "office", "address": "192.0.2.8" }] }))),
            ("GET", "/api/v1/lists", "", None),
            ("GET", "/api/v1/status", "", None),
            ("GET", "/api/v1/workers", "", None),
            ("GET", "/api/v1/rules", "", None),
            ("GET", "/api/v1/rules/counters", &order, None),
            ("POST", "/api/v1/rules/reset-counters", "", Some(json!({ "rules": [] }))),
            ("GET", "/api/v1/doors", "", None),
            ("GET", "/api/v1/connections", "", None),
            ("GET", "/api/v1/connections/count", "", None),
            ("GET", "/api/v1/counters", "", None),
            ("GET", "/api/v1/sources", "", None),
            ("GET", "/api/v1/sources/{address}", "192.0.2.7", None),
            ("POST", "/api/v1/sources/{address}/watch", "192.0.2.7", Some(json!({ "time": "10s" }))),
            ("POST", "/api/v1/kernel", "", Some(json!({ "side": "outside", "frame": vec![0; 64] }))),
            ("POST", "/api/v1/sample", "", Some(sample)),
            ("POST", "/api/v1/trace", "", Some(json!({ "filter": "dst-port 22", "time": "9s", "rate": 9 }))),
            ("DELETE", "/api/v1/trace/{id}", "1", None),
            ("GET", "/api/v1/lints", "", None),
            ("GET", "/api/v1/export", "", None),
            ("POST", "/api/v1/check", "", Some(json!({ "source": "test", "text": "add chain=input" }))),
            ("POST", "/api/v1/plan", "", Some(json!({ "source": "test", "text": QUICK }))),
            ("POST", "/api/v1/explain", "", Some(json!({ "packet": "icmp 192.0.2.7 > 203.0.113.5" }))),
            ("POST", "/api/v1/rules/edit", "", Some(json!({ "base": 1, "commands": ["comment 0 new"] }))),
            ("POST", "/api/v1/undo", "", Some(json!({}))),
            ("POST", "/api/v1/redo", "", Some(json!({}))),
            ("POST", "/api/v1/history/{number}/rollback", "1", Some(json!({ "confirm_within": "60s" }))),
            ("POST", "/api/v1/cancel", "", None),
            ("POST", "/api/v1/apply", "", Some(json!({ "source": "test", "text": QUICK, "confirm_within": "60s" }))),
            ("POST", "/api/v1/confirm", "", None),
            ("POST", "/api/v1/reload", "", None),
            ("GET", "/api/v1/history", "", None),
            ("GET", "/api/v1/history/{number}", "1", None),
            ("DELETE", "/api/v1/lists/{list}/{address}", "office/192.0.2.7", None),
            ("DELETE", "/api/v1/lists/{list}", "office", None),
            ("GET", "/api/v1/openapi.json", "", None),
        ];
        let mut documented = 0;
        for (method, path, with, body) in cases {
            let (begin, rest) = path.split_once('{').map_or((path, ""), |(begin, rest)| (begin, rest));
            let end = rest.rsplit_once('}').map_or("", |(_, end)| end);
            let (status, answer) = ask(method, &format!("{begin}{with}{end}"), body);
            assert!(status == 200 || status == 204, "{method} {path}: {status} {answer}");
            valid(&document, method, path, &status.to_string(), &answer);
            documented += 1;
            let (status, failure) = ask("PATCH", &format!("{begin}{with}{end}"), None);
            assert_eq!(status, 405);
            valid(&document, method, path, "default", &failure);
        }
        let routes: usize = document["paths"]
            .as_object()
            .expect("paths")
            .values()
            .map(|methods| methods.as_object().expect("methods").len())
            .sum();
        // The end of a sample, the read of a trace and the end of connections need numbers or a filter; the stream of events has no
        // end; tokens are refused to tokens; the three requests about a session and that for the traffic are those
        // of a browser; the two about links to the page are on the unix socket alone.
        assert_eq!(documented, routes - 13, "each route has a case here");
        // The documents of the command and of the API are the same.
        let shown = filter.ask(&["show", "rules"]).expect("rules");
        let (_, got) = ask("GET", "/api/v1/rules", None);
        assert_eq!(
            shown.as_object().expect("an object").keys().collect::<Vec<_>>(),
            got.as_object().expect("one").keys().collect::<Vec<_>>()
        );
        assert_eq!(shown["rules"].as_array().expect("rules").len(), got["rules"].as_array().expect("rules").len());
    });
}

/// Fails unless the answer has the documented form.
fn valid(document: &Value, method: &str, path: &str, status: &str, answer: &Value) {
    let response = &document["paths"][path][method.to_ascii_lowercase()]["responses"][status];
    assert!(response.is_object(), "{method} {path} has no answer {status} in the document");
    let schema = &response["content"]["application/json"]["schema"];
    if schema.is_null() {
        assert!(answer.is_null(), "{method} {path}: {answer}");
        return;
    }
    let whole = json!({ "allOf": [schema], "components": document["components"] });
    let validator = jsonschema::validator_for(&whole).expect("a schema");
    let errors: Vec<_> =
        validator.iter_errors(answer).map(|error| format!("{error} at {}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{method} {path}: {errors:#?}\n{answer}");
}

#[test]
fn the_audit_file_has_sign_ins_and_what_tokens_changed() {
    let authority = Authority::new("kp-api-audit");
    let file = authority.path("audit.jsonl");
    let mut options = authority.options("");
    options.sections.insert_str(0, &format!("audit = \"{}\"\n", file.display()));
    with(&options, |topology, filter| {
        let secret = authority.token(filter, "robot", "operate", "1d");
        for arguments in
            [&["show", "status"][..], &["show", "rules"], &["connection", "remove", "protocol=tcp", "--force"]]
        {
            authority.knockctl(topology, "robot", arguments);
        }
        let (status, _) = authority.request(topology, "kp_wrong", "GET", "/api/v1/status", None);
        assert_eq!(status, 401);
        let changes = || {
            let text = fs::read_to_string(&file).unwrap_or_default();
            assert!(!text.contains(&secret), "{text}");
            let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
            lines.filter(|line| line["kind"] == "operator").collect::<Vec<_>>()
        };
        eventually("the last change is in the file", || {
            changes().iter().any(|change| change["operator"]["action"] == "connection-remove")
        });
        let changes = changes();
        let of =
            |action: &str| changes.iter().filter(|change| change["operator"]["action"] == action).collect::<Vec<_>>();
        let signed_in = of("sign-in");
        assert_eq!(signed_in.len(), 1, "once for many requests, and not for a wrong token: {changes:?}");
        assert_eq!(
            (&signed_in[0]["operator"]["by"]["token"], &signed_in[0]["source"]),
            (&json!("robot"), &json!("127.0.0.1"))
        );
        assert_eq!(of("token-create")[0]["operator"]["subject"], "robot");
        let ended = &of("connection-remove")[0]["operator"];
        assert_eq!((&ended["by"]["token"], &ended["subject"]), (&json!("robot"), &json!("protocol=tcp")));
    });
}

#[test]
fn the_role_that_only_reads_does_not_learn_the_passphrase_of_a_door() {
    let authority = Authority::new("kp-api-passphrase");
    let mut options = authority.options("");
    options.sections +=
        "[[door]]\nname = \"ssh\"\nknock = [\"udp/4321 \\\"open sesame\\\"\"]\nopens = [\"tcp/22\"]\nfor = \"1m\"\n";
    with(&options, |topology, filter| {
        let status = |role: &str| {
            let token = authority.token(filter, &format!("my-{role}"), role, "1d");
            let mut command = topology.filter.command("curl");
            command.args(["--silent", "--header", "Accept: application/vnd.knockplane.message+json", "--cacert"]);
            command.arg(authority.path("ca.pem")).args(["--header", &format!("Authorization: Bearer {token}")]);
            run(command.arg(format!("https://127.0.0.1:{PORT}/api/v1/status"))).expect("curl").stdout
        };
        let (reader, operator) = (status("read"), status("operate"));
        assert!(reader.contains("udp/4321") && !reader.contains("sesame"), "{reader}");
        assert!(operator.contains("sesame"), "{operator}");
        let shown = authority.knockctl(topology, "my-read", &["show", "status"]);
        assert!(shown.ok() && !shown.stdout.contains("sesame"), "{shown:?}");
    });
}
