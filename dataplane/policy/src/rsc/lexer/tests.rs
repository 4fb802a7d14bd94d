use super::super::syntax_error::{MAX_NESTING, SyntaxErrorKind};
use super::*;

/// The commands of a text, each as its words with values in `<>`, and the errors.
fn commands(text: &[u8]) -> Vec<(String, Vec<SyntaxErrorKind>)> {
    let mut lexer = Lexer::new(text);
    let mut commands = Vec::new();
    while let Some(command) = lexer.next(|_| true) {
        let words: Vec<String> = command
            .words
            .iter()
            .map(|word| {
                let name = String::from_utf8_lossy(&word.name.bytes).into_owned();
                match &word.value {
                    Some(value) => format!("{name}=<{}>", value.bytes.escape_ascii()),
                    None => name,
                }
            })
            .collect();
        commands.push((words.join(" "), command.errors.iter().map(|error| error.kind).collect()));
    }
    commands
}

/// A text of one command without errors.
fn clean(text: &[u8]) -> String {
    let mut commands = commands(text);
    assert_eq!((commands.len(), &commands[0].1[..]), (1, &[][..]), "{commands:?}");
    commands.remove(0).0
}

fn errors(text: &[u8]) -> Vec<SyntaxErrorKind> {
    commands(text).into_iter().flat_map(|(_, errors)| errors).collect()
}

#[test]
fn commands_end_at_line_ends_and_semicolons() {
    let words: Vec<String> =
        commands(b"a b\nc;d # e\r\n\r\n# f \\\ng\rh # \"").into_iter().map(|(words, _)| words).collect();
    assert_eq!(words, ["a b", "c", "d", "g", "h"]);
    assert_eq!(commands(b" \n;#x"), []);
}

#[test]
fn every_escape() {
    assert_eq!(clean(br#"a="\"\\\$\?\_\n\r\t\a\b\f\v\E1\00\0A""#), r#"a=<\"\\$? \n\r\t\x07\x08\x0c\x0b\xe1\x00\n>"#);
}

#[test]
fn lines_are_joined_in_words_strings_and_behind_the_equals_sign() {
    assert_eq!(
        clean(b"a=1 \\\n    b=\\\r\n\t 2 c=\"x y\\\r    z\\_\\\n \\_w\" d=3\\\n  4"),
        "a=<1> b=<2> c=<x yz  w> d=<34>"
    );
    assert_eq!(clean(b"a=\"#;!~,:\" b=!~,:'* c= d=\"\""), "a=<#;!~,:> b=<!~,:\\'*> c=<> d=<>");
}

#[test]
fn flaws_are_named() {
    let cases: &[(&[u8], SyntaxErrorKind)] = &[
        (b"a=$x", SyntaxErrorKind::Variable),
        (b"a=\"x $y\"", SyntaxErrorKind::Variable),
        (b"a=\"\\q\"", SyntaxErrorKind::Escape),
        (b"a=\"\\e1\"", SyntaxErrorKind::Escape),
        (b"a=x\\y", SyntaxErrorKind::Backslash),
        (b"a=[b c={d \"]\"}]", SyntaxErrorKind::Bracket),
        (b"a=b=c", SyntaxErrorKind::Unquoted(b'=')),
        (b"a=b#c", SyntaxErrorKind::Unquoted(b'#')),
        (b"a=x\"y\"", SyntaxErrorKind::QuoteInside),
        (b"a=\"x\"y", SyntaxErrorKind::BehindQuote),
        (b"a=\"x\n", SyntaxErrorKind::StringOverLines),
        (b"a={x\n", SyntaxErrorKind::BracketOverLines),
        (b"a=\"x", SyntaxErrorKind::OpenString),
        (b"a={x", SyntaxErrorKind::OpenBracket),
        (b"a \\", SyntaxErrorKind::CutOff),
        (b"a \\\n  ", SyntaxErrorKind::CutOff),
    ];
    for (text, error) in cases {
        assert_eq!(errors(text), [*error], "{}", text.escape_ascii());
    }
    assert_eq!(errors(b"a={x]"), [SyntaxErrorKind::WrongCloser, SyntaxErrorKind::Bracket]);
}

#[test]
fn bodies_run_over_lines_where_they_may() {
    let text = b"add source={\n  # it's\n  :put \"}\"\n} b=\"x\ny\"\nc";
    let mut lexer = Lexer::new(text);
    let command = lexer.next(|_| false).unwrap();
    assert_eq!(command.words.len(), 3);
    assert_eq!(command.errors.iter().map(|error| error.kind).collect::<Vec<_>>(), [SyntaxErrorKind::Bracket]);
    assert_eq!(lexer.next(|_| false).unwrap().words[0].name.bytes, b"c");
}

#[test]
fn nesting_is_bounded() {
    assert_eq!(errors(&[b'['; MAX_NESTING + 1]), [SyntaxErrorKind::TooDeep]);
    assert_eq!(errors(&[b'['; MAX_NESTING]), [SyntaxErrorKind::OpenBracket]);
    assert_eq!(errors(&[b'{'; 1_000_000]), [SyntaxErrorKind::TooDeep]);
}

#[test]
fn parts_of_values_are_found_again() {
    let text = b"a=\"12\\\n   34\\_5\"";
    let command = Lexer::new(text).next(|_| true).unwrap();
    let value = command.words[0].value.as_ref().unwrap();
    assert_eq!((value.bytes.as_slice(), &text[value.span.clone()]), (&b"1234 5"[..], &text[2..]));
    assert_eq!(&text[value.part(2..4)], b"34");
    assert_eq!(&text[value.part(1..3)], b"2\\\n   3");
    assert_eq!(&text[value.part(5..6)], b"5");
    assert_eq!(value.part(6..6), value.span);
}

#[test]
fn hanging_lines_are_those_directly_below() {
    let hangs = |text: &[u8]| {
        let mut lexer = Lexer::new(text);
        lexer.next(|_| true);
        lexer.next(|_| true).unwrap().hangs
    };
    assert!(hangs(b"a\n  b") && hangs(b"a\r\n\tb"));
    assert!(![&b"a\nb"[..], b"a\n\n  b", b"a;\n  b", b"a; b", b"a\n # c\n  b"].iter().any(|text| hangs(text)));
}
