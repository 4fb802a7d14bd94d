//! `knockctl show connections` with filters and numbers, and `knockctl connection remove`.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use knockplane_tests::{Filter, FilterOptions, SERVER, Topology, VISITOR};
use serde_json::Value;

use crate::doors::{goes_on, session};
use crate::fast_path::{PORT, carried, receiver, send, with_fast_path};
use crate::scenario::{eventually, knock, serve_tcp, udp_from, udp_to, with};
use crate::top::on_screen;

/// Established connections pass, and those that begin on the right ports.
const STATEFUL: &str = "/ip firewall filter
add action=accept chain=input connection-state=established comment=established
add action=accept chain=input connection-state=new protocol=tcp dst-port=8080
add action=accept chain=input connection-state=new protocol=udp
add action=drop chain=input comment=others
";

fn connections(filter: &Filter<'_>, words: &[&str]) -> Vec<Value> {
    let shown = filter.ask(&[&["show", "connections"], words].concat()).expect("connections");
    shown["connections"].as_array().expect("connections").clone()
}

fn total(filter: &Filter<'_>, words: &[&str]) -> u64 {
    let shown = filter.ask(&[&["show", "connections", "--count"], words].concat()).expect("numbers");
    shown["total"].as_u64().expect("a number")
}

/// Whether the far end echoes what is sent within a second.
fn echoes(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a time limit");
    let mut answer = [0; 11];
    stream.write_all(b"still here\n").is_ok() && stream.read_exact(&mut answer).is_ok()
}

#[test]
fn filters_select_and_count_and_their_words_are_checked() {
    with(&FilterOptions::from_rules(STATEFUL), |topology, filter| {
        serve_tcp(topology, 8080);
        let _session = session(topology, 8080);
        let receiver = receiver(topology);
        for socket in [udp_to(topology, PORT), udp_from(topology, VISITOR, PORT)] {
            assert_eq!(send(&socket, &receiver, 1), 100);
        }
        for (words, number) in [
            (&[][..], 3),
            (&["protocol=udp"], 2),
            (&["protocol=tcp"], 1),
            (&["port=8080"], 1),
            (&["port=4999-5001", "source=10.77.0.3"], 1),
            (&["source=10.77.0.0/30"], 3),
            (&["destination=10.77.0.1"], 0),
            (&["state=new"], 2),
            (&["state=established"], 1),
            (&["door=nothing"], 0),
        ] {
            assert_eq!(connections(filter, words).len(), number, "{words:?}");
            assert_eq!(total(filter, words), number as u64, "{words:?}");
        }
        assert_eq!(connections(filter, &["--source", VISITOR]).len(), 1, "the option of earlier versions");
        let text = filter.knockctl(&["show", "connections", "--count"]).expect("knockctl").stdout;
        assert!(
            text.contains("2  udp") && text.contains("1  tcp       established") && text.contains("3  all"),
            "{text}"
        );
        for (word, told) in [
            ("src=10.77.0.1", "the words are source=, destination=, protocol=, port=, state=, door="),
            ("state=open", "syn-sent"),
            ("port=0", "65535"),
        ] {
            for command in [&["show", "connections", word][..], &["connection", "remove", word]] {
                let refused = filter.knockctl(command).expect("knockctl");
                assert!(refused.code == Some(2) && refused.stderr.contains(told), "{command:?}: {refused:?}");
            }
        }
        assert_eq!(filter.knockctl(&["connection", "remove"]).expect("knockctl").code, Some(2));
        assert_eq!(total(filter, &[]), 3, "nothing was ended");
    });
}

#[test]
fn a_removed_connection_passes_no_frame_although_the_kernel_carried_it() {
    with_fast_path(&FilterOptions::from_rules(STATEFUL), |topology, filter| {
        serve_echo(topology, 8080);
        let connect = || topology.client.within(|| Ok(TcpStream::connect((SERVER, 8080))?)).expect("it connects");
        let (mut removed, mut other) = (connect(), connect());
        let before = carried(filter);
        eventually("the kernel carries both", || {
            assert!(echoes(&mut removed) && echoes(&mut other));
            carried(filter) > before + 20
        });
        let port = format!("port={}", removed.local_addr().expect("an address").port());
        let ended = filter.knockctl(&["connection", "remove", &port]).expect("knockctl");
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "1 connection ended\n"), "{ended:?}");
        assert!(!echoes(&mut removed), "no frame passes");
        assert!(echoes(&mut other), "the other connection continues");
        eventually("its frames are dropped", || {
            let rules = filter.ask(&["show", "rules"]).expect("rules");
            rules["rules"].as_array().expect("rules").last().expect("a rule")["counter"]["packets"].as_u64() > Some(0)
        });
        let again = filter.knockctl(&["connection", "remove", &port]).expect("knockctl");
        assert_eq!(again.stdout, "0 connections ended\n", "it was ended before: {again:?}");
        for log in ["connections ended by request", "connections ended "] {
            assert!(filter.log().contains(log), "{log}: {}", filter.log());
        }
        // A new connection is decided anew.
        assert!(echoes(&mut connect()));
    });
}

#[test]
fn several_connections_need_an_answer_or_force() {
    with(&FilterOptions::from_rules(STATEFUL), |topology, filter| {
        let receiver = receiver(topology);
        let sockets = [udp_to(topology, PORT), udp_from(topology, VISITOR, PORT)];
        let flows = || sockets.iter().for_each(|socket| assert_eq!(send(socket, &receiver, 1), 100));
        flows();
        let refused = filter.knockctl(&["connection", "remove", "protocol=udp"]).expect("knockctl");
        assert!(refused.code == Some(5) && refused.stderr.contains("--force"), "{refused:?}");
        let mut asked = on_screen(filter, &["connection", "remove", "protocol=udp"]);
        let screen = asked.wait_for("the question", |screen| screen.contains("End them? [y/N]")).expect("asked");
        assert!(screen.contains("this ends 2 connections"), "{screen}");
        asked.send("n\r").expect("sent");
        assert_eq!(asked.wait().expect("it ends").code(), Some(5));
        assert_eq!(total(filter, &[]), 2);
        let mut asked = on_screen(filter, &["connection", "remove", "protocol=udp"]);
        asked.wait_for("the question", |screen| screen.contains("[y/N]")).expect("asked");
        asked.send("y\r").expect("sent");
        asked.wait_for("the answer", |screen| screen.contains("2 connections ended")).ok();
        assert_eq!((asked.wait().expect("it ends").code(), total(filter, &[])), (Some(0), 0));
        flows();
        let forced = filter.ask(&["connection", "remove", "protocol=udp", "--force"]).expect("an answer");
        assert_eq!((&forced["ended"], total(filter, &[])), (&2.into(), 0), "{forced}");
    });
}

#[test]
fn both_ends_of_a_connection_through_a_door_get_a_reset() {
    let door =
        "[[door]]\nname = \"echo\"\nknock = [\"tcp/1111\", \"tcp/2222\"]\nopens = [\"tcp/8080\"]\nfor = \"1m\"\n";
    let options = FilterOptions { sections: door.to_owned(), ..FilterOptions::from_rules("") };
    with(&options, |topology, filter| {
        serve_echo(topology, 8080);
        knock(topology, "1111:tcp 2222:tcp");
        let mut stream = session(topology, 8080);
        goes_on(&mut stream);
        assert_eq!(total(filter, &["door=echo"]), 1);
        let ended = filter.knockctl(&["connection", "remove", "door=echo"]).expect("knockctl");
        assert_eq!(ended.stdout, "1 connection ended\n");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit");
        let end = stream.read(&mut [0; 16]);
        assert_eq!(end.expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);
        // The grant stays.
        assert!(echoes(&mut session(topology, 8080)));
    });
}

/// An echo server that keeps each connection.
fn serve_echo(topology: &Topology, port: u16) {
    let listen = || Ok(TcpListener::bind((SERVER, port))?);
    let listener = topology.server.within(listen).expect("the port is free");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}
