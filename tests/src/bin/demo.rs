//! The demo: a whole knock scenario on real interfaces that the demo creates, with live output and a result for each
//! step.
//!
//! Exit code 0 if every step succeeded, 1 if one failed, 130 if it was interrupted. Namespaces, interfaces and
//! processes are removed in every case. With `--keep` the demo continues until Ctrl-C, and forwards a port of loopback to the web
//! page of its filter.

use std::io::{IsTerminal as _, Read as _, Write as _, stdout};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use knockplane_tests::{CLIENT, Filter, FilterOptions, SERVER, Topology, binary, forward};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Shows what an inline port-knocking firewall does.
#[derive(Parser)]
struct Arguments {
    /// Continue after the last step, until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

/// A time that is longer than the longest timeout in the rules.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(75);
const TCP_PORT: u16 = 8080;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&interrupted)) {
            eprintln!("cannot catch signals: {error}");
            return ExitCode::FAILURE;
        }
    }
    match tell(&arguments, &interrupted) {
        Ok(Ending::Told { failed: 0 }) => ExitCode::SUCCESS,
        Ok(Ending::Told { failed }) => {
            println!("\n{failed} step(s) failed");
            ExitCode::FAILURE
        }
        Ok(Ending::Interrupted) => {
            println!("\ninterrupted; everything is cleaned up");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

enum Ending {
    Told { failed: usize },
    Interrupted,
}

/// The scenario, and everything that must be removed at the end.
struct Scenario<'t> {
    topology: &'t Topology,
    filter: Filter<'t>,
    interrupted: Arc<AtomicBool>,
}

fn tell(arguments: &Arguments, interrupted: &Arc<AtomicBool>) -> anyhow::Result<Ending> {
    println!("Three network namespaces in a row, and the filter in the middle drops everything:\n");
    let topology = Topology::new(1)?;
    let (client, filter, server) = (topology.client.name(), topology.filter.name(), topology.server.name());
    println!("   {client}        {filter}        {server}");
    println!("   {CLIENT}  ═══════════  outside ▓ inside  ═══════════  {SERVER}\n");
    let mut options = FilterOptions::from_configs("two-ports.rsc")?;
    let page = if arguments.keep { Some(page_port()?) } else { None };
    if let Some(page) = &page {
        // The same port on both sides, so that the links of `knockctl page` are right for browsers of this host.
        options.sections =
            format!("[control.api]\npage = true\nlisten = \"{}\"\ntokens = \"tokens.json\"\n", page.local_addr()?);
    }
    let filter = Filter::start(&topology, &options)?;
    println!(
        "Dataplane (process {}) and control (process {}) run with configs/two-ports.rsc:\n",
        filter.dataplane.id(),
        filter.control.id()
    );
    print_indented(&std::fs::read_to_string(filter.path("rules.rsc"))?);
    let scenario = Scenario { topology: &topology, filter, interrupted: Arc::clone(interrupted) };
    scenario.serve_tcp()?;

    type DemoStep = fn(&Scenario<'_>) -> anyhow::Result<String>;
    let steps: [(&str, DemoStep); 6] = [
        ("a ping from client to server is dropped", closed_at_first),
        ("knocks in the wrong order open nothing", wrong_order),
        ("the knock in the right order opens the door", real_knock),
        ("the door closes when the entry expires", closes_again),
        ("a knock with passphrases, by knocker", passphrases),
        ("rules, lists and metrics of the operator", operator),
    ];
    let mut failed = 0;
    for (number, (title, step)) in (1..).zip(steps) {
        println!("\n━━ {number}. {title}");
        let outcome = step(&scenario);
        if scenario.is_interrupted() {
            return Ok(Ending::Interrupted);
        }
        match outcome {
            Ok(what) => println!("PASS {number}. {what}"),
            Err(error) => {
                failed += 1;
                println!("FAIL {number}. {error:#}");
            }
        }
    }
    if let Some(page) = page {
        scenario.stay(page)?;
    }
    Ok(Ending::Told { failed })
}

/// The port of loopback for the web page: that of a default configuration, if it is free.
fn page_port() -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(("127.0.0.1", 9_480)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)));
    listener.context("no free port on 127.0.0.1")
}

fn closed_at_first(scenario: &Scenario<'_>) -> anyhow::Result<String> {
    ensure!(!scenario.ping()?, "the ping was answered");
    ensure!(scenario.connect().is_err(), "a TCP connection was accepted");
    Ok("neither ping nor TCP passes".to_owned())
}

fn wrong_order(scenario: &Scenario<'_>) -> anyhow::Result<String> {
    scenario.client(&format!("knock -v {SERVER} 4321:tcp 1234:tcp"))?;
    ensure!(!scenario.ping()?, "the door is open after 4321, 1234");
    scenario.client(&format!("knock -v {SERVER} 1234:udp 4321:udp"))?;
    ensure!(!scenario.ping()?, "the door is open after UDP knocks");
    Ok("wrong order and wrong protocol open nothing".to_owned())
}

fn real_knock(scenario: &Scenario<'_>) -> anyhow::Result<String> {
    scenario.client(&format!("knock -v {SERVER} 1234:tcp 4321:tcp"))?;
    ensure!(scenario.ping()?, "the door did not open");
    scenario.connect().context("ping passes, but TCP does not")?;
    Ok("ping and a TCP connection pass".to_owned())
}

fn closes_again(scenario: &Scenario<'_>) -> anyhow::Result<String> {
    let patience = Instant::now() + LONGEST_TIMEOUT;
    while let Some(seconds) = scenario.time_left("secured")? {
        if Instant::now() > patience || scenario.is_interrupted() {
            bail!("{CLIENT} is still in the list");
        }
        scenario.say_live(&format!("   {CLIENT} stays in the list secured for another {seconds:.0} s"));
        scenario.pause(Duration::from_secs(if stdout().is_terminal() { 1 } else { 10 }.min(seconds.ceil() as u64)));
    }
    scenario.say_live("");
    ensure!(!scenario.ping()?, "the door is still open");
    Ok("the door has closed when the entry expired".to_owned())
}

fn passphrases(scenario: &Scenario<'_>) -> anyhow::Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/passphrases.rsc").canonicalize()?;
    println!("   $ knockctl apply configs/passphrases.rsc");
    let applied = scenario.filter.knockctl(&["apply", &file.display().to_string()])?;
    ensure!(applied.ok(), "apply: {}", applied.stderr);
    print_indented(&applied.stdout);
    let knocker = binary("knocker")?;
    let knocker = knocker.display();
    scenario.client(&format!("{knocker} {SERVER} 1234:udp=supersecretpassword1 4321:udp=supersecretpassword1"))?;
    ensure!(!scenario.ping()?, "a wrong passphrase opened the door");
    scenario.client(&format!("{knocker} {SERVER} 1234:udp=supersecretpassword1 4321:udp=supersecretpassword2"))?;
    ensure!(scenario.ping()?, "the right passphrases did not open the door");
    Ok("the wrong passphrase opens nothing, the right ones do".to_owned())
}

fn operator(scenario: &Scenario<'_>) -> anyhow::Result<String> {
    for what in [&["show", "rules"][..], &["show", "rules", "--stats"], &["show", "lists"]] {
        println!("   $ knockctl {}", what.join(" "));
        let shown = scenario.filter.knockctl(what)?;
        ensure!(shown.ok(), "knockctl {}: {}", what.join(" "), shown.stderr);
        print_indented(&shown.stdout);
    }
    let forwarded = scenario.filter.metric("knockplane_packets_total", &["verdict=\"forward\""])?;
    let dropped = scenario.filter.metric("knockplane_packets_total", &["verdict=\"drop\""])?;
    ensure!(forwarded > 0.0 && dropped > 0.0, "/metrics counts {forwarded} forwarded and {dropped} dropped frames");
    let namespace = scenario.topology.filter.name();
    println!("   metrics: http://127.0.0.1:9479/metrics, inside the namespace {namespace}");
    Ok(format!("rules, lists and metrics agree: {forwarded} frames forwarded, {dropped} dropped"))
}

impl Scenario<'_> {
    /// Runs a command line on the client, and prints it.
    fn client(&self, line: &str) -> anyhow::Result<()> {
        let shown = line.rsplit_once("/knocker").map_or_else(|| line.to_owned(), |(_, rest)| format!("knocker{rest}"));
        println!("   client $ {shown}");
        let output = self.topology.client.run(line)?;
        print_indented(&output.stdout);
        ensure!(output.ok(), "{line}: {}", output.stderr);
        Ok(())
    }

    /// Whether the server answers the client's ping.
    fn ping(&self) -> anyhow::Result<bool> {
        let line = format!("ping -n -c 2 -i 0.2 -W 1 {SERVER}");
        println!("   client $ {line}");
        let output = self.topology.client.run(&line)?;
        let summary = output.stdout.lines().find(|line| line.contains("transmitted")).unwrap_or(&output.stderr);
        print_indented(summary);
        Ok(output.ok())
    }

    /// Opens a TCP connection to the server and sends a line there and back.
    fn connect(&self) -> anyhow::Result<()> {
        println!("   client $ a TCP connection to {SERVER}:{TCP_PORT}");
        let address: SocketAddr = format!("{SERVER}:{TCP_PORT}").parse()?;
        let outcome = self.topology.client.within(|| {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(b"open sesame\n")?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer)?;
            ensure!(&answer == b"open sesame\n", "the answer is not what was sent");
            Ok(())
        });
        print_indented(
            &outcome.as_ref().map_or_else(|error| format!("{error:#}"), |()| "connected, and echoed".to_owned()),
        );
        outcome
    }

    /// An echo server that runs until the demo ends.
    fn serve_tcp(&self) -> anyhow::Result<()> {
        let listener = self.topology.server.within(|| Ok(TcpListener::bind((SERVER, TCP_PORT))?))?;
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut buffer = [0; 64];
                if let Ok(count) = stream.read(&mut buffer) {
                    let _ = stream.write_all(&buffer[..count]);
                }
            }
        });
        Ok(())
    }

    /// Seconds until the client's entry in a list expires; `None` if there is no entry.
    fn time_left(&self, list: &str) -> anyhow::Result<Option<f64>> {
        let lists = self.filter.ask(&["show", "lists", list])?;
        let entries = lists["entries"].as_array().context("no entries in the answer")?;
        let Some(entry) = entries.iter().find(|entry| entry["address"] == CLIENT) else { return Ok(None) };
        Ok(Some(entry["time_left_seconds"].as_f64().context("no time left in the answer")?))
    }

    /// On a terminal, one line that is overwritten; elsewhere one line each time.
    fn say_live(&self, text: &str) {
        if stdout().is_terminal() {
            print!("\r\x1b[2K{text}");
            let _ = stdout().flush();
        } else if !text.is_empty() {
            println!("{text}");
        }
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Sleeps, unless interrupted.
    fn pause(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && !self.is_interrupted() {
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn stay(&self, page: TcpListener) -> anyhow::Result<()> {
        let (client, filter) = (self.topology.client.name(), self.topology.filter.name());
        println!("\nStaying up until Ctrl-C. In another terminal, for example:");
        println!("   ip netns exec {client} ping {SERVER}");
        println!(
            "   ip netns exec {client} knock {SERVER} 1234:tcp 4321:tcp     (after: knockctl apply configs/two-ports.rsc)"
        );
        println!(
            "   {} --socket {} show rules",
            binary("knockctl").unwrap_or_default().display(),
            self.filter.path("control.sock").display()
        );
        println!("   ip netns exec {filter} curl http://127.0.0.1:9479/metrics");
        forward(page, &self.topology.filter)?;
        let link = self.filter.knockctl(&["page"])?;
        ensure!(link.ok(), "knockctl page: {}", link.stderr);
        println!("\nThe web page of this filter, for a browser of this host. The link signs in once, within 60 s:");
        println!("   {}", link.stdout.trim());
        println!("Another link:");
        println!("   {}", self.filter.knockctl_line(&["page"])?);
        let _ = stdout().flush();
        while !self.is_interrupted() {
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

fn print_indented(text: &str) {
    for line in text.lines() {
        println!("     {line}");
    }
}
