//! Edits, plans, checks and explanations of rules through the API on TCP, as a program or a browser requests them.

use std::fs;

use knockplane_tests::{CLIENT, Filter, FilterOptions, Folder, SERVER, Topology, run};
use serde_json::{Value, json};

use crate::scenario::{eventually, ping, with};

const PORT: u16 = 9480;

/// Pings are dropped by the second rule, and would be accepted by the third.
const RULES: &str = "/ip firewall filter
add action=accept chain=input dst-port=22 protocol=tcp comment=ssh
add action=drop chain=input protocol=icmp comment=silent
add action=accept chain=input protocol=icmp comment=pings
add action=drop chain=input comment=rest
";

/// A filter with the API, and tokens of two roles.
struct Api<'a> {
    topology: &'a Topology,
    read: String,
    administer: String,
}

impl<'a> Api<'a> {
    fn options(folder: &Folder) -> FilterOptions {
        let tokens = folder.0.join("tokens.json").display().to_string();
        let sections = format!("[control.api]\nlisten = \"127.0.0.1:{PORT}\"\ntokens = \"{tokens}\"\n");
        FilterOptions { sections, ..FilterOptions::from_rules(RULES) }
    }

    fn new(topology: &'a Topology, filter: &Filter<'_>) -> Api<'a> {
        let token = |role: &str| {
            let made = filter.knockctl(&["token", "new", &format!("my-{role}"), "--role", role, "--expires", "1d"]);
            made.expect("knockctl").stdout.trim().to_owned()
        };
        Api { topology, read: token("read"), administer: token("administer") }
    }

    /// The status and the JSON of a request.
    fn send(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut command = self.topology.filter.command("curl");
        command.args(["--silent", "--show-error", "--max-time", "30", "--write-out", "\n%{http_code}"]);
        command.args(["--request", method, "--header", &format!("Authorization: Bearer {token}")]);
        if let Some(body) = body {
            command.args(["--header", "Content-Type: application/json", "--data", &body.to_string()]);
        }
        let output = run(command.arg(format!("http://127.0.0.1:{PORT}/api/v1/{path}"))).expect("curl");
        let (body, status) = output.stdout.rsplit_once('\n').unwrap_or_else(|| panic!("{output:?}"));
        let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body).expect("JSON") };
        (status.parse().expect("a status"), body)
    }

    fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(&self.administer, "POST", path, Some(body))
    }

    /// A request that must succeed.
    fn done(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, body);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    fn get(&self, path: &str) -> Value {
        let (status, answer) = self.send(&self.read, "GET", path, None);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    fn rules(&self) -> Value {
        self.get("rules")
    }

    /// The comments of the rules, in order.
    fn comments(&self) -> Vec<String> {
        let rules = self.rules();
        let rules = rules["rules"].as_array().expect("rules");
        rules.iter().map(|rule| rule["comment"].as_str().expect("a comment").to_owned()).collect()
    }

    /// The id of the rule with this comment.
    fn id(&self, comment: &str) -> String {
        let rules = self.rules();
        let mut rules = rules["rules"].as_array().expect("rules").iter();
        rules.find(|rule| rule["comment"] == comment).expect("a rule")["id"].as_str().expect("an id").to_owned()
    }
}

#[test]
fn a_rule_that_a_token_moves_changes_the_verdict_on_real_packets() {
    let folder = Folder::make(&format!("kp-api-edits-{}", std::process::id())).expect("a folder");
    with(&Api::options(&folder), |topology, filter| {
        let api = Api::new(topology, filter);
        assert!(!ping(topology, ""));
        let packet = json!({ "packet": format!("icmp {CLIENT} > {SERVER}") });
        let explained = api.send(&api.read, "POST", "explain", Some(packet.clone()));
        assert_eq!((explained.0, &explained.1["verdict"]), (200, &json!("drop")), "{explained:?}");
        assert_eq!(explained.1["rules"][0]["because"], "protocol=tcp, but protocol is icmp", "{}", explained.1);

        // The plan of the edit, and the edit.
        let moved = format!("move {} {}", api.id("pings"), api.id("silent"));
        let edit = json!({ "base": 1, "commands": [moved], "comment": "ticket 7" });
        let dry = json!({ "base": 1, "commands": [moved], "dry_run": true });
        let (status, refused) = api.send(&api.read, "POST", "rules/edit", Some(dry.clone()));
        assert_eq!((status, &refused["code"]), (403, &json!("forbidden")), "a plan by commands needs the role, too");
        let planned = api.done("rules/edit", dry);
        assert_eq!(planned["plan"]["rules"]["moved"].as_array().expect("rules").len(), 1, "{planned}");
        let gone = planned["plan"]["lints"]["gone"].as_array().expect("lints");
        assert!(gone.iter().any(|lint| lint["code"] == "K001" && lint["line"] == 4), "{planned}");
        let told = planned["lints"].as_array().expect("lints").iter().filter(|lint| lint["code"] == "K001");
        assert_eq!(told.map(|lint| lint["id"].clone()).collect::<Vec<_>>(), [json!(api.id("silent"))], "{planned}");
        assert_eq!((&planned["applied"], &planned["loss"]), (&Value::Null, &Value::Null), "{planned}");
        assert_eq!(api.rules()["revision"], 1, "nothing changed");
        assert!(!ping(topology, ""));
        let edited = api.done("rules/edit", edit.clone());
        assert_eq!(
            (&edited["applied"]["revision"], &edited["applied"]["changes"]["rules_moved"]),
            (&json!(2), &json!(1))
        );
        assert!(ping(topology, ""));
        assert_eq!(api.comments(), ["ssh", "pings", "silent", "rest"]);
        let explained = api.send(&api.read, "POST", "explain", Some(packet)).1;
        assert_eq!((&explained["verdict"], &explained["decided_by"]), (&json!("forward"), &json!(1)), "{explained}");

        // It is in the history as an edit by the holder of the token.
        let history = api.get("history");
        let last = history["revisions"].as_array().expect("revisions").last().expect("one").clone();
        let told = (&last["origin"], &last["edit"], &last["comment"], &last["token"]);
        assert_eq!(
            told,
            (&json!("edit"), &json!(format!("rule {moved}")), &json!("ticket 7"), &json!("my-administer"))
        );

        // The base is stale now: the refusal has the changes since.
        let (status, refused) = api.post("rules/edit", edit);
        assert_eq!((status, &refused["code"]), (409, &json!("conflict")), "{refused}");
        let message = refused["message"].as_str().expect("a message");
        assert!(message.contains("revision 1, and revision 2 runs") && message.contains("rule move"), "{message}");

        // Several commands are one revision, with the numbers of its base.
        let commands =
            json!(["remove 0", "add chain=input protocol=udp comment=\"a \\\"b\\\"\" place-before=3", "disable 2"]);
        api.done("rules/edit", json!({ "base": 2, "commands": commands }));
        assert_eq!(api.comments(), ["pings", "silent", "a \"b\"", "rest"]);
        assert_eq!((&api.rules()["revision"], &api.rules()["rules"][1]["disabled"]), (&json!(3), &json!(true)));
        let bad = json!({ "base": 3, "commands": ["enable 1", "set 1 dst-port=x"] });
        let (status, refused) = api.post("rules/edit", bad);
        assert_eq!((status, &refused["code"]), (422, &json!("invalid-rules")), "{refused}");
        assert_eq!(
            (&refused["problems"][0]["line"], api.rules()["revision"].clone()),
            (&json!(2), json!(3)),
            "{refused}"
        );
    });
}

#[test]
fn an_edit_without_confirmation_is_rolled_back_and_a_loss_needs_force() {
    let folder = Folder::make(&format!("kp-api-confirm-{}", std::process::id())).expect("a folder");
    with(&Api::options(&folder), |topology, filter| {
        let api = Api::new(topology, filter);
        let edit = json!({ "base": 1, "commands": ["disable 1"], "confirm_within": "5s" });
        let edited = api.done("rules/edit", edit);
        assert_eq!(edited["applied"]["confirm_within_seconds"], 5.0, "{edited}");
        assert!(ping(topology, ""));
        let (status, refused) = api.post("rules/edit", json!({ "base": 2, "commands": ["enable 1"] }));
        assert_eq!((status, &refused["code"]), (409, &json!("conflict")), "one change waits: {refused}");
        eventually("the edit is rolled back", || api.rules()["rules"][1]["disabled"] == false);
        assert!(!ping(topology, ""));
        let base = api.rules()["revision"].clone();

        let loss = |more: Value| {
            let mut edit = json!({ "base": base, "commands": ["remove 0,2"] });
            edit.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            api.post("rules/edit", edit)
        };
        let (status, planned) = loss(json!({ "dry_run": true }));
        assert!(
            status == 200 && planned["loss"].as_str().expect("a text").contains("nothing from outside"),
            "{planned}"
        );
        let (status, refused) = loss(json!({}));
        assert_eq!((status, &refused["code"]), (409, &json!("unconfirmed")), "{refused}");
        assert_eq!(api.rules()["revision"], base);
        // The same for rules as text.
        let text = "/ip firewall filter\nadd chain=input action=drop\n";
        let planned = api.done("plan", json!({ "source": "new", "text": text }));
        assert!(planned["loss"].as_str().expect("a text").contains("nothing from outside"), "{planned}");
        let (status, refused) = api.post("apply", json!({ "source": "new", "text": text }));
        assert_eq!((status, &refused["code"]), (409, &json!("unconfirmed")), "{refused}");
        assert_eq!(api.rules()["revision"], base);
        assert_eq!(loss(json!({ "force": true })).0, 200);
        assert_eq!(api.comments(), ["silent", "rest"]);

        // Undo, redo and rollback are revisions, too.
        let planned = api.done("undo", json!({ "dry_run": true }));
        assert_eq!(planned["plan"]["rules"]["added"].as_array().expect("rules").len(), 2, "{planned}");
        assert_eq!((&planned["applied"], &planned["loss"]), (&Value::Null, &Value::Null), "{planned}");
        assert_eq!(api.comments(), ["silent", "rest"], "a plan changes nothing");
        let undone = api.done("undo", json!({ "confirm_within": "1m" }))["applied"].clone();
        assert_eq!(undone["changes"]["rules_added"], 2, "{undone}");
        api.done("confirm", json!({}));
        assert_eq!(api.comments(), ["ssh", "silent", "pings", "rest"]);
        let planned = api.done("redo", json!({ "base": undone["revision"], "dry_run": true }));
        assert!(planned["loss"].as_str().expect("a text").contains("nothing from outside"), "{planned}");
        api.done("redo", json!({ "base": undone["revision"], "force": true }));
        assert_eq!(api.comments(), ["silent", "rest"]);
        let (status, refused) = api.post("redo", json!({}));
        assert_eq!((status, &refused["code"]), (409, &json!("conflict")), "{refused}");
        let back = api.done("history/1/rollback", json!({ "comment": "back" }))["applied"].clone();
        assert_eq!(api.comments(), ["ssh", "silent", "pings", "rest"]);
        let (status, refused) = api.post("history/1/rollback", json!({ "base": 1 }));
        assert_eq!((status, &refused["code"]), (409, &json!("conflict")), "{refused}");
        for path in ["undo", "redo", "history/1/rollback"] {
            assert_eq!(api.send(&api.read, "POST", path, Some(json!({}))).0, 403);
        }
        let last =
            filter.ask(&["history"]).expect("the history")["revisions"].as_array().expect("revisions").last().cloned();
        let last = last.expect("one");
        assert_eq!(
            (&last["revision"], &last["origin"], &last["back_to"]),
            (&back["revision"], &json!("rollback"), &json!(1))
        );
    });
}

#[test]
fn checks_and_plans_are_those_of_knockctl() {
    let folder = Folder::make(&format!("kp-api-plan-{}", std::process::id())).expect("a folder");
    with(&Api::options(&folder), |topology, filter| {
        let api = Api::new(topology, filter);
        let new = RULES.replace("comment=silent", "comment=quiet").replace("22", "2222");
        let file = filter.path("new.rsc").display().to_string();
        fs::write(&file, &new).expect("written");
        for (path, command) in [("check", "check"), ("plan", "plan")] {
            let (status, answer) = api.send(&api.read, "POST", path, Some(json!({ "text": new, "source": file })));
            let printed = filter.knockctl(&[command, &file, "--json"]).expect("knockctl").stdout;
            let printed: Value = serde_json::from_str(&printed).expect("JSON");
            assert_eq!((status, &answer), (200, &printed), "{path}");
        }
        let bad = json!({ "text": "/ip firewall filter\nadd chain=input dst-port=x\nadd chain=input actoin=drop\n", "source": "bad.rsc" });
        let (status, checked) = api.send(&api.read, "POST", "check", Some(bad.clone()));
        let file = &checked["files"][0];
        assert_eq!((status, &file["valid"], &file["file"]), (200, &json!(false), &json!("bad.rsc")), "{checked}");
        let problems = file["problems"].as_array().expect("problems");
        let places: Vec<_> =
            problems.iter().map(|problem| (problem["line"].clone(), problem["column"].clone())).collect();
        assert!(places.contains(&(json!(2), json!(26))) && places.iter().any(|place| place.0 == 3), "{checked}");
        assert!(problems.iter().all(|problem| problem["message"].is_string()), "{checked}");
        let (status, refused) = api.send(&api.read, "POST", "plan", Some(bad));
        assert_eq!((status, &refused["code"]), (422, &json!("invalid-rules")), "{refused}");
        assert_eq!(refused["problems"][0]["line"], 2, "{refused}");

        let lints = api.get("lints");
        let ids: Vec<_> =
            lints["lints"].as_array().expect("lints").iter().map(|lint| (&lint["code"], &lint["id"])).collect();
        assert!(ids.contains(&(&json!("K001"), &json!(api.id("pings")))), "{lints}");
        let export = api.get("export");
        let printed = filter.knockctl(&["export"]).expect("knockctl").stdout;
        assert_eq!((&export["text"], &export["revision"]), (&json!(printed), &json!(1)));
        let (status, refused) =
            api.send(&api.read, "POST", "explain", Some(json!({ "packet": "tcp 192.0.2.1 > 192.0.2.2:22 snyc" })));
        assert_eq!((status, &refused["code"]), (400, &json!("invalid-request")), "{refused}");
        assert!(refused["message"].as_str().expect("a message").contains("^^^^"), "{refused}");
    });
}
