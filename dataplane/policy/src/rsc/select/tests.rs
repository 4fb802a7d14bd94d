use std::borrow::Cow;

use super::*;

/// Whether an entry `list=guests`, `comment="tmp 1"`, `disabled=no`, `address=10.0.0.0/8` is found.
fn finds(query: &str) -> Result<bool, String> {
    let text = format!("x {query}");
    let (query, _) = Query::read(text.as_bytes(), &(2..text.len()), "/ip firewall address-list")
        .map_err(|(span, _)| text[span].to_owned())?;
    let entry = |name: &[u8]| match name {
        b"list" => Cow::from(&b"guests"[..]),
        b"comment" => Cow::from(&b"tmp 1"[..]),
        b"disabled" | b"dynamic" => Cow::from(&b"no"[..]),
        b"address" => Cow::from(&b"10.0.0.0/8"[..]),
        _ => Cow::from(&b""[..]),
    };
    Ok(query.meets(&mut { entry }))
}

#[test]
fn every_form_of_a_condition() {
    for found in [
        "[find]",
        "[ find where ]",
        "[find list=guests]",
        "[find where list=\"guests\" address=10.0.0.0/8]",
        "[/ip firewall address-list find where list=guests]",
        "[/ip/firewall/address-list/find list=guests]",
        "[find !disabled]",
        "[find !dynamic disabled=no]",
        "[find comment~\"^tmp\" && list!=x]",
        "[find list=x or comment=\"tmp 1\"]",
        "[find list=x and comment=a || list = guests and !disabled]",
        "[find (list=x || list=guests) && !(comment~\"2\\$\")]",
        "[find comment~\"[0-9]\\$\"]",
        "[find list=guests \\\n    comment]",
        "[fi\\\n    nd li\\\r\n    st=gues\\\n\t ts comment=\\\n    \"tmp \\\n    1\"]",
        "[find timeout=\"\"]",
    ] {
        assert_eq!(finds(found), Ok(true), "{found}");
    }
    for lost in ["[find list=x]", "[find disabled]", "[find where !list]", "[find timeout]", "[find !!disabled]"] {
        assert_eq!(finds(lost), Ok(false), "{lost}");
    }
}

#[test]
fn one_of_the_found_entries_is_taken_by_its_index() {
    let number = |query: &str| {
        let text = format!("x {query}");
        let read = Query::read(text.as_bytes(), &(2..text.len()), "/ip firewall address-list");
        read.map(|(_, number)| number).map_err(|_| ())
    };
    for taken in ["([find list=a]->1)", "( [find list=a] -> 1 )", "[:pick [find list=a] 1]", "[ :pick [find] 1 ]"] {
        assert_eq!(number(taken), Ok(Some(1)), "{taken}");
    }
    assert_eq!(number("[find list=a]"), Ok(None));
    for other in ["([find])", "([find]->x)", "([find]->)", "[:pick [find] 0 1]", "[:len [find] 1]", "(1)", "([]->0)"] {
        assert_eq!(number(other), Err(()), "{other}");
    }
}

#[test]
fn unsupported_expressions_are_shown() {
    for (query, at) in [
        ("[get 0 list]", "[get 0 list]"),
        ("[:len x]", "[:len x]"),
        ("[/ip firewall nat find]", "[/ip firewall nat find]"),
        ("[find list=$x]", "$"),
        ("[find list=\"$x\"]", "$"),
        ("[find address in 10.0.0.0/8]", "i"),
        ("[find timeout>10]", ">"),
        ("[find list=a,comment=b]", "="),
        ("[find list=[x]]", "["),
        ("[find list=]", ""),
        ("[find (list=a]", ""),
        ("[find list=a)]", ")"),
        ("[find list=a || ]", ""),
        ("[find comment~\"(\"]", "\"(\""),
        ("[find comment~\"\"]", "\"\""),
    ] {
        assert_eq!(finds(query).map_err(|at| at.to_owned()), Err(at.to_owned()), "{query}");
    }
}
