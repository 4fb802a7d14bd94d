//! Doors in their text form, and errors in it.

use super::*;
use crate::settings::Settings;

/// Doors from JSON, in the form of the configuration.
pub(crate) fn doors(json: &str) -> Vec<Door> {
    distinct(&mut serde_json::Deserializer::from_str(json)).unwrap()
}

fn error(rest: &str) -> String {
    let json = format!(r#"[{{"name":"ssh","knock":["tcp/7"]}},{{{rest}}}]"#);
    distinct(&mut serde_json::Deserializer::from_str(&json)).expect_err("must be refused").to_string()
}

#[test]
fn a_door_needs_a_knock_and_the_rest_has_defaults() {
    let [door] = &doors(r#"[{"name":"ssh","knock":["tcp/7","udp/9 \"a b\""]}]"#)[..] else { panic!("one door") };
    let seconds = Duration::from_secs;
    assert_eq!(
        (door.within, door.total, door.open_for, door.hold_off),
        (seconds(10), seconds(30), seconds(3_600), seconds(0))
    );
    assert!(door.strict && door.log && !door.cut && door.closing_shape().is_none());
    assert!(door.opens.is_empty() && door.sources.is_empty() && door.max_attempts.is_none());
    assert_eq!(door.shape(), Shape { steps: 2, strict: true, within: seconds(10), total: seconds(30) });
    assert!(door.admits([192, 0, 2, 1].into()));
}

#[test]
fn doors_read_as_they_are_written() {
    let doors = doors(
        r#"[{"name":"A-b_9","knock":["tcp/7 syn"],"close":["icmp size=99"],"within":"1m30s","total":"2h",
             "opens":["tcp/22,80-90","icmp"],"for":"1d","strict":false,"hold-off":"5s",
             "sources":["192.0.2.0/24","2001:db8::1"],"max-attempts":"5/1m","log":false,"cut":true}]"#,
    );
    let json = serde_json::to_string(&doors).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Door>>(&json).unwrap(), doors, "{json}");
    assert!(!doors[0].admits([192, 0, 3, 1].into()) && doors[0].admits("2001:db8::1".parse().unwrap()));
    assert_eq!(doors[0].closing_shape().unwrap().steps, 1);
}

#[test]
fn doors_are_serialized_with_the_settings_and_are_not_a_key_of_the_policy() {
    let settings = Settings { doors: doors(r#"[{"name":"ssh","knock":["tcp/7"]}]"#), ..Settings::default() };
    let json = serde_json::to_string(&settings).unwrap();
    assert_eq!(serde_json::from_str::<Settings>(&json).unwrap(), settings, "{json}");
    assert!(settings.clone().with_doors(Vec::new()).is_err());
    assert_eq!(Settings::default().with_doors(settings.doors.clone()), Ok(settings));
}

#[test]
fn every_complaint_names_the_door_and_the_key() {
    let cases = [
        (r#""name":"a b","knock":["tcp/1"]"#, "door `a b`: `name`: write 1 to 32 letters"),
        (r#""name":"","knock":["tcp/1"]"#, "door ``: `name`: write 1 to 32 letters"),
        (r#""name":"ssh-knocking","knock":["tcp/1"]"#, "`name`: a name that ends in `-knocking`"),
        (r#""name":"ssh","knock":["tcp/1"]"#, "door `ssh`: `name`: two doors have this name"),
        (r#""name":"a","knock":[]"#, "door `a`: `knock`: there are 0 steps; write 1 to 16"),
        (r#""name":"a","knock":["tcp/1","tcp/x"]"#, "door `a`: `knock`: step 2: `x` is not a port"),
        (r#""name":"a","knock":["tcp/1"],"close":["x"]"#, "door `a`: `close`: step 1: `x` is not a step"),
        (r#""name":"a","knock":["tcp/1"],"close":["tcp/1"]"#, "door `a`: `close`: it equals the knock"),
        (r#""name":"a","knock":["tcp/1"],"within":"0s""#, "door `a`: `within`: `0s` is not a time from 1s to"),
        (r#""name":"a","knock":["tcp/1"],"total":"soon""#, "door `a`: `total`: `soon` is not a time"),
        (r#""name":"a","knock":["tcp/1"],"for":"36w""#, "door `a`: `for`: `36w` is not a time"),
        (r#""name":"a","knock":["tcp/1"],"hold-off":"x""#, "door `a`: `hold-off`: `x` is not a time from 0s"),
        (r#""name":"a","knock":["tcp/1"],"opens":["22"]"#, "door `a`: `opens`: `22` is not an opening"),
        (r#""name":"a","knock":["tcp/1"],"sources":["x"]"#, "door `a`: `sources`: `x` is not an address"),
        (r#""name":"a","knock":["tcp/1"],"max-attempts":"5""#, "door `a`: `max-attempts`: `5` is not a number"),
        (r#""name":"a","knock":["tcp/1"],"strikt":true"#, "unknown field `strikt`"),
        (r#""name":"a""#, "missing field `knock`"),
    ];
    for (rest, expected) in cases {
        let error = error(rest);
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    }
    let steps = vec![r#""tcp/1""#; 17].join(",");
    assert!(error(&format!(r#""name":"a","knock":[{steps}]"#)).contains("there are 17 steps; write 1 to 16"));
}
