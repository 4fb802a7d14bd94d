//! Scripts and their expansions.

use proptest::prelude::*;

use super::super::read;
use crate::cases::cases;
use crate::rsc::{export, place};
use crate::rule::RuleSet;

/// The rules of a text without problems.
fn rules(text: &str) -> RuleSet {
    let reading = read(text.as_bytes());
    assert_eq!(reading.problems, [], "{text}");
    reading.rules
}

/// Asserts that a script expands to these commands.
#[track_caller]
fn same(script: &str, plain: &str) {
    let export = |text: &str| export(&rules(text)).unwrap();
    assert_eq!(export(&format!("/ip firewall filter\n{script}")), export(&format!("/ip firewall filter\n{plain}")));
}

/// Line, text and message of each problem.
fn problems(script: &str) -> Vec<(u32, String, String)> {
    let text = format!("/ip firewall filter\n{script}");
    let reading = read(text.as_bytes());
    let told = |problem: crate::rsc::Problem| (problem.line, text[problem.span].to_owned(), problem.message);
    reading.problems.into_iter().map(told).collect()
}

#[test]
fn variables_stand_for_their_values() {
    same(
        ":local port 7001\n:global name \"knock 1\"\n:local net (\"192.0.2.\" . 0 . \"/24\")\n:local no\n\
         add chain=input protocol=tcp dst-port=$port comment=\"$name at $port\" src-address=$net address-list=$name \
         action=add-src-to-address-list\n:set port ($port + 1)\nadd chain=$\"chain of mine\" dst-port=$port protocol=tcp\n"
            .replace("$\"chain of mine\"", "input")
            .as_str(),
        "add chain=input protocol=tcp dst-port=7001 comment=\"knock 1 at 7001\" src-address=192.0.2.0/24 \
         address-list=\"knock 1\" action=add-src-to-address-list\nadd chain=input dst-port=7002 protocol=tcp\n",
    );
    same(
        "local \"my list\" trusted; global off true\nadd chain=input src-address-list=$\"my list\" disabled=$off log=no\n",
        "add chain=input src-address-list=trusted disabled=yes\n",
    );
    same(
        ":local a \"x\\\"\\$\\\\ \\E1\"\nadd chain=input comment=$a\n",
        "add chain=input comment=\"x\\\"\\$\\\\ \\E1\"\n",
    );
}

#[test]
fn loops_run_over_arrays_and_numbers() {
    same(
        ":local ports {7001;7002;7003}\n:foreach p in=$ports do={ add chain=input protocol=tcp dst-port=$p }\n\
         :for i from=1 to=2 do={\n  :foreach proto in={tcp;\"udp\"} do={\n    add chain=(\"c\" . $i) \\\n      protocol=$proto\n  }\n}\n\
         :for i from=5 to=1 step=-2 do={add chain=d priority=$i}\n",
        "add chain=input protocol=tcp dst-port=7001\nadd chain=input protocol=tcp dst-port=7002\n\
         add chain=input protocol=tcp dst-port=7003\nadd chain=c1 protocol=tcp\nadd chain=c1 protocol=udp\n\
         add chain=c2 protocol=tcp\nadd chain=c2 protocol=udp\nadd chain=d priority=5\nadd chain=d priority=3\n\
         add chain=d priority=1\n",
    );
    // A sequence of knocks in which each step needs the list of the previous step.
    same(
        ":local steps {{7001;\"10s\"};{7002;\"20s\"}}\n:local before \"\"\n:local n 0\n:foreach s in=$steps do={\n\
         \t:set n ($n + 1)\n\t:local to \"k$n\"\n\t:if ([:len $before] = 0) do={\n\
         add chain=input protocol=tcp dst-port=($s->0) action=add-src-to-address-list address-list=$to \
         address-list-timeout=($s->1)\n\t} else={\n\
         add chain=input protocol=tcp dst-port=[:pick $s 0] src-address-list=$before action=add-src-to-address-list \
         address-list=$to address-list-timeout=[:pick $s 1]\n\t}\n\t:set before $to\n}\n\
         add chain=input src-address-list=$before action=accept\n",
        "add chain=input protocol=tcp dst-port=7001 action=add-src-to-address-list address-list=k1 address-list-timeout=10s\n\
         add chain=input protocol=tcp dst-port=7002 src-address-list=k1 action=add-src-to-address-list address-list=k2 \
         address-list-timeout=20s\nadd chain=input src-address-list=k2\n",
    );
}

#[test]
fn conditions_on_known_values_choose() {
    for (condition, holds) in [
        ("(1 < 2)", true),
        ("($n >= 3 && $s = \"a\")", true),
        ("(($n = 4) or (!($s != \"a\")))", true),
        ("($n * 2 + 1 = 7)", true),
        ("(($s . $n) = \"a3\")", true),
        ("(7 / 2 = 3 and 7 % 2 = 1)", true),
        ("$yes", true),
        ("(!$yes)", false),
        ("([:len $s] > 1)", false),
        ("([:typeof $nothing] = \"nothing\")", true),
        ("([:tonum \"5\"] = 5)", true),
        ("([:tostr 5] = \"5\")", true),
        ("([:len [:toarray \"a,b,c\"]] = 3)", true),
        ("([:pick \"abcdef\" 1 3] = \"bc\")", true),
        ("([:len ({1;2}, 3)] = 3)", true),
        ("(-1 < 0)", true),
    ] {
        let script = format!(
            ":local n 3; :local s \"a\"; :local yes true; :local nothing\n\
             :if {condition} do={{ add chain=input comment=yes }} else={{ add chain=input comment=no }}\n"
        );
        same(&script, &format!("add chain=input comment={}\n", if holds { "yes" } else { "no" }));
    }
}

#[test]
fn scopes_end_with_their_blocks() {
    same(
        ":local a 1\n{ :local a 2; :local b 3; add chain=input comment=$a }\nadd chain=input comment=$a\n\
         :do { add chain=input comment=tried } on-error={ :put failed }\n",
        "add chain=input comment=2\nadd chain=input comment=1\nadd chain=input comment=tried\n",
    );
    let found = problems("{ :local b 3 }\nadd chain=input comment=$b\n");
    assert_eq!(found, [(3, "$b".to_owned(), "the variable `b` is not set".to_owned())]);
    // `:set` changes the variable of the enclosing block, and globals are visible everywhere.
    same(
        ":local a 1\n{ :set a 5; :global g 6 }\n:global g\nadd chain=input comment=\"$a$g\"\n",
        "add chain=input comment=56\n",
    );
}

#[test]
fn find_may_contain_values() {
    same(
        ":local tag \"mine\"\nadd chain=input comment=\"mine 1\"\nadd chain=input comment=other\n\
         remove [find comment~\"^$tag\"]\n:foreach c in={other} do={ set [find comment=$c] disabled=yes }\n\
         add chain=input action=drop place-before=([find chain=input]->0)\n",
        "add chain=input action=drop\nadd chain=input comment=other disabled=yes\n",
    );
}

#[test]
fn values_that_depend_on_the_router_are_refused_by_name() {
    for (script, text, name) in [
        (":local t [/system clock get time]\n", "[/system clock get time]", "[/system clock get time]"),
        (":while (true) do={ add chain=input }\n", ":while", ":while"),
        (":global f do={ :return 1 }\n", "do={ :return 1 }", "do="),
        ("$f a=1\n", "$f", "function"),
        (":execute \"x\"\n", ":execute", ":execute"),
        (":parse \"x\"\n", ":parse", ":parse"),
        (":error \"x\"\n", ":error", ":error"),
        (":foreach k,v in={1} do={}\n", "k,v", "k,v"),
        (":foreach r in=[find chain=input] do={}\n", "[find chain=input]", "[find chain=input]"),
        (":local a {x=1}\n", "=", "keys"),
        (":if (\"a\" ~ \"b\") do={}\n", "~", "~"),
        (":if (1 = \"1\") do={}\n", "= \"1\"", "compared"),
        (":if (\"a\" . 1 + 1 = 2) do={}\n", "+", "`.` and sums"),
        (":local a (1 / 0)\n", "/ 0", "no result"),
        (":set a 1\n", "a", "not declared"),
        ("}\n", "}", "not opened"),
        (":do { add chain=input } while=(true)\n", "while=(true)", "do while"),
    ] {
        let found = problems(script);
        let [(2, at, message)] = &found[..] else { panic!("{script}: {found:?}") };
        assert_eq!((at.as_str(), message.contains(name)), (text, true), "{script}: {message}");
    }
    // The problem is reported once, at the origin of the value, and not at its uses.
    let used = ":local t [/system clock get time]\nadd chain=input comment=$t\n:if ($t = 1) do={ add chain=x }\n";
    assert_eq!(problems(used).len(), 1);
    let statements = ":put \"a $x\"; :log info \"b\"\nadd chain=input\n";
    let reading = read(format!("/ip firewall filter\n{statements}").as_bytes());
    assert_eq!((reading.problems.len(), reading.warnings.len(), reading.rules.rules.len()), (0, 2, 1));
}

#[test]
fn problems_in_loops_have_their_line_and_values() {
    let script = ":foreach proto in={tcp;udp} do={\n  :for i from=65534 to=65537 step=2 do={\n    add chain=input protocol=$proto dst-port=$i\n  }\n}\n";
    let found = problems(script);
    assert_eq!(found.len(), 1, "{found:?}");
    let (line, at, message) = &found[0];
    assert_eq!((*line, at.as_str()), (4, "$i"));
    assert!(message.contains("65536") && message.ends_with("(`$proto` is `tcp`, `$i` is `65536`)"), "{message}");
    let found = problems(":foreach a in={1;2} do={\n add chain=input protocl=tcp comment=$a\n}\n");
    assert_eq!(found.len(), 1);
    assert!(found[0].2.contains("protocl") && found[0].2.contains("`$a` is `1`"), "{found:?}");
}

#[test]
fn rules_of_scripts_know_their_places() {
    let text = "/ip firewall filter\n:foreach p in={1;2} do={\n  add chain=input protocol=tcp dst-port=$p\n}\nadd chain=input\n";
    let reading = read(text.as_bytes());
    assert_eq!(reading.problems, []);
    let lines: Vec<u32> = reading.rules.rules.iter().map(|rule| rule.line).collect();
    assert_eq!(lines, [3, 3, 5]);
    for spans in &reading.rule_spans[..2] {
        assert_eq!(spans.value("dst-port").map(|span| &text[span]), Some("$p"));
        assert_eq!(spans.value("protocol").map(|span| &text[span]), Some("tcp"));
        assert_eq!(&text[spans.first_line(text.as_bytes())], "add chain=input protocol=tcp dst-port=$p");
    }
    let mut findings: Vec<crate::rsc::Finding> = Vec::new();
    place(&mut findings, "a", text.as_bytes());
}

#[test]
fn a_menu_inside_a_block_does_not_apply_after_it() {
    same("{ /ip firewall filter add chain=input }\nadd chain=forward\n", "add chain=input\nadd chain=forward\n");
    let found = problems(":if (true) do={\n/ip firewall raw\nadd chain=prerouting\n}\nadd chain=input action=drop\n");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].0, found[0].1.as_str()), (6, "add"));
    assert_eq!(problems(":for i from=1 to=2 do={\nadd chain=prerouting\n/ip firewall raw\n}\n").len(), 1);
}

#[test]
fn unsupported_menus_may_have_any_script() {
    let text = ":local a 1\n/system script\nadd name=x source={ :while (true) do={ \\$y } }\nadd name=z source=\"$b $(c)\"\n\
        /ip firewall filter\nadd chain=input comment=$a\n";
    assert_eq!(rules(text).rules[0].comment, "1");
    assert_eq!(read(text.as_bytes()).skipped.len(), 1);
}

#[test]
fn scripts_end_within_their_bounds() {
    let long = ":for i from=1 to=100000000 do={ :local x $i }\n";
    assert_eq!(problems(long).len(), 1);
    let wide = ":for i from=1 to=100000000 do={ add chain=input comment=$i }\n";
    assert!(problems(wide).iter().any(|(.., message)| message.contains("too long")));
    let grows = ":local a \"xxxxxxxxxxxxxxxx\"\n:for i from=1 to=1000 do={ :set a ($a . $a) }\n";
    assert_eq!(problems(grows).len(), 1);
    let array = ":local a {1;2}\n:for i from=1 to=1000 do={ :set a ($a, $a) }\n";
    assert_eq!(problems(array).len(), 1);
    let deep = format!("{}add chain=input{}\n", "{".repeat(60), "}".repeat(60));
    assert_eq!(problems(&deep).len(), 1);
    let nested = format!(":local a {}1{}\n", "(".repeat(60), ")".repeat(60));
    assert_eq!(problems(&nested).len(), 1);
}

/// Pieces of scripts. Many of their combinations are valid.
const PIECES: &[&str] = &[
    ":local a ",
    ":global a ",
    ":set a ",
    ":if ",
    ":foreach x in=",
    ":for i from=1 to=3 ",
    "do={",
    "} else={",
    "}",
    "{",
    "(",
    ")",
    "[",
    "]",
    "$a",
    "$x",
    "$i",
    "\"",
    "\"$a\"",
    "1",
    "2;3",
    ";",
    "\n",
    " ",
    ".",
    "+",
    "=",
    "->0",
    "->",
    ",",
    "[:len $a]",
    "[:pick $a 0 1]",
    "[find chain=input]",
    "add chain=input comment=",
    "add chain=$x dst-port=$i protocol=tcp",
    "remove [find comment=$a]",
    "/ip firewall raw\n",
    "/ip firewall filter\n",
    "\\",
    "\\\n",
    "!",
    "&&",
    "true",
    "#",
    ":put ",
    "do={ ",
    "step=-1 ",
    "$",
    "\\E1",
    "\u{e9}",
    ":toarray ",
    "set 0 ",
    "local b ",
];

proptest! {
    #![proptest_config(cases(3_000))]

    #[test]
    fn any_script_ends_and_its_problems_have_places(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..40),
        bytes in proptest::collection::vec(any::<u8>(), 0..4),
        at in 0..200_usize,
    ) {
        let mut text = [b"/ip firewall filter\n:local a 5\n", pieces.concat().as_bytes()].concat();
        let at = at.min(text.len());
        text.splice(at..at, bytes);
        let reading = read(&text);
        let lines = 1 + text.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() as u32;
        for problem in reading.problems.iter().chain(&reading.warnings) {
            prop_assert!(problem.span.start <= problem.span.end && problem.span.end <= text.len());
            prop_assert!((1..=lines).contains(&problem.line));
        }
        prop_assert!(reading.rules.rules.iter().all(|rule| (1..=lines).contains(&rule.line)));
        for spans in &reading.rule_spans {
            prop_assert!(spans.first_line(&text).end <= text.len());
        }
    }
}
