//! Large files, most of them hostile: checks that the limits of time and memory hold and are reported.

use super::*;

/// The messages, without repetitions.
fn messages(text: &[u8]) -> Vec<String> {
    let mut messages: Vec<String> = read(text).problems.into_iter().map(|problem| problem.message).collect();
    messages.dedup();
    messages
}

fn filter(rest: &str) -> Vec<u8> {
    format!("/ip firewall filter\n{rest}").into_bytes()
}

#[test]
fn too_many_problems_are_reported() {
    let reading = read(&filter(&"x\n".repeat(50_000)));
    assert_eq!(reading.problems.len(), 10_001);
    let last = reading.problems.last().unwrap();
    let message = "more than 10000 problems: the rest of the file was not read";
    assert_eq!((&*last.message, last.line), (message, 10_002));
    // With the maximum number of reported problems, the reader still reads the whole file.
    let text = format!("{}add chain=input\n", "x\n".repeat(10_000));
    let reading = read(&filter(&text));
    assert_eq!((reading.problems.len(), reading.rules.rules.len()), (10_000, 1));
}

#[test]
fn too_many_words_are_refused() {
    let too_long = "a command of more than 1000 words";
    let words = " chain=input".repeat(100_000);
    assert_eq!(messages(&filter(&format!("add{words}"))), ["`chain` is given twice", too_long]);
    assert!(messages(&filter(&format!("add{}", " a".repeat(100_000)))).contains(&too_long.to_owned()));
    // In other menus, these words are skipped.
    assert_eq!(messages(format!("/ip firewall nat\nadd{words}").as_bytes()), [""; 0]);
    // Lines whose `\` was lost do not bypass the limit.
    let lines = "\n  dst-port=1".repeat(100_000);
    let told = read(&filter(&format!("add chain=input{lines}"))).problems;
    assert_eq!(told.len(), 10_001);
}

#[test]
fn at_most_a_hundred_flaws_are_reported() {
    let told = read(&filter(&format!("add chain=input comment=\"{}\"", "$".repeat(100_000)))).problems;
    assert_eq!(told.len(), 100);
    // Errors that break the text are reported after many flaws as well, and also in other menus.
    let text = format!("/system script add source=\"{}\" b=\"", "$".repeat(100_000));
    assert_eq!(messages(text.as_bytes()), ["this string never ends"]);
}

#[test]
fn too_many_conditions_names_and_numbers_are_refused() {
    let add = "add chain=input comment=a\n";
    let conditions = format!("{add}set [find {}comment=a] disabled=no", "comment=a ".repeat(100));
    assert_eq!(messages(&filter(&conditions)), ["more than 100 conditions"]);
    let numbers = format!("{add}set 0{} disabled=no", ",0".repeat(10_000));
    assert_eq!(messages(&filter(&numbers)), ["more than 10000 entries are named"]);
    let path = format!("{add}set [{}find] disabled=no", "a ".repeat(100_000));
    assert!(messages(&filter(&path))[0].starts_with("commands and expressions in brackets"));
    let regex = format!("{add}set [find comment~\"{}\"] disabled=no", "a".repeat(1_001));
    assert_eq!(messages(&filter(&regex)), ["an expression of 1001 bytes"]);
    let names = format!("/interface list add name=a include=a{}", ",a".repeat(1_000));
    assert_eq!(messages(names.as_bytes()), ["more than 1000 lists"]);
}

#[test]
fn too_many_menus_are_counted_together() {
    let text: String = (0..3_000).map(|menu| format!("/menu{menu} a add x=y\n")).collect();
    let skipped = read(text.as_bytes()).skipped;
    assert_eq!((skipped.len(), skipped[1_000].menu.as_str(), skipped[1_000].commands), (1_001, "…", 2_000));
}
