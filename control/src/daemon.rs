//! The control process: settings, two listeners, a watch of the dataplane, a clean stop.
//!
//! A start takes the unix socket first, so that a second control process ends before it has any effect. After SIGINT or
//! SIGTERM, the process accepts no new request, gives running requests a few seconds, and removes the file of the socket.
//! Neither affects the dataplane.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{CommandFactory, Parser};
use knockplane_limits::descriptors;
use knockplane_limits::predecessor::{self, Deadline};
use knockplane_log::{AT_EXIT, AT_FAILED_START, LogOptions};
use knockplane_policy::exit::Exit;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::api::{self, App};
use crate::dataplane::{self, Dataplane};
use crate::holder;
use crate::metrics::{METRICS_LISTENER, Metrics, OPERATORS_LISTENER};
use crate::names::{self, Resolver};
use crate::server::{Server, Sizes, Times};
use crate::settings::{DEFAULT_FILE, Settings};
use crate::socket;

/// Time limit for running requests after a signal. The dataplane completes an apply that takes longer.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Connections that the kernel queues until they are accepted; at most `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The control process of knockplane: API, metrics and health for people and machines.
#[derive(Debug, Parser)]
#[command(name = "knockplane-control", version)]
struct Args {
    /// Configuration file; the process reads its section [control]
    #[arg(long, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    #[command(flatten)]
    log: LogOptions,
}

/// The command line, for the manual page.
pub fn command() -> clap::Command {
    Args::command()
}

/// Runs the process and returns its exit code.
pub fn main() -> ExitCode {
    let args = Args::parse();
    if !args.log.start("knockplane-control") {
        return Exit::Runtime.into();
    }
    // A task that panics does not end the others.
    knockplane_log::log_panics();
    let exit = start(&args);
    // A failure occurs only before the process serves requests.
    let patience = if exit == Exit::Ok { AT_EXIT } else { AT_FAILED_START };
    knockplane_log::flush(Some(patience));
    exit.into()
}

fn start(args: &Args) -> Exit {
    let settings = match Settings::load(&args.config) {
        Ok(settings) => settings,
        Err(invalid) => {
            for problem in invalid.problems {
                error!("{problem}");
            }
            return Exit::Invalid;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.context("cannot start the event loop").and_then(|runtime| runtime.block_on(run(&settings)));
    match ended {
        Ok(()) => Exit::Ok,
        Err(error) => {
            error!("{error:#}");
            Exit::Runtime
        }
    }
}

/// Serves requests until a signal arrives.
///
/// # Errors
/// If the process cannot listen on an address or catch signals. Then it has served nothing.
pub async fn run(settings: &Settings) -> anyhow::Result<()> {
    let descriptors = descriptors::raise();
    let sizes = Sizes::within(descriptors);
    if sizes.are_reduced() {
        warn!(
            descriptors,
            metrics = sizes.metrics.total,
            operators = sizes.operators.total,
            "the limit on open files allows few connections: raise it to 1024 (LimitNOFILE=, ulimit -n)"
        );
    }
    let deadline = Deadline::start();
    let (unix, _removal) = socket::bind(&settings.socket, settings.socket_group, deadline).await?;
    let tcp = listen(settings.listen, deadline).await?;
    // The library sets a backlog of 128, which a burst of connections fills before the process is scheduled.
    rustix::net::listen(&tcp, BACKLOG).context("cannot set the backlog of the listener")?;
    let dataplane = Dataplane::new(&settings.dataplane_socket);
    let mut signals = Signals::new()?;
    let resolver = Resolver::new(settings.name_servers.clone());
    let app = Arc::new(App::new(dataplane.clone(), resolver.clone(), Metrics::default()));
    info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %settings.listen,
        socket = %settings.socket.display(),
        dataplane = %settings.dataplane_socket.display(),
        "control process started"
    );

    tokio::spawn(names::watch(dataplane.clone(), resolver));
    tokio::spawn(dataplane::watch(dataplane));
    let (stop, stopped) = watch::channel(false);
    let server = |name, limits, times| Server { name, limits, times, refusals: app.metrics.refusals(name) };
    let operators = server(OPERATORS_LISTENER, sizes.operators, Times::OPERATORS);
    let metrics = server(METRICS_LISTENER, sizes.metrics, Times::METRICS);
    let servers = async {
        tokio::join!(
            operators.run(unix, api::whole(app.clone()), until(stopped.clone())),
            metrics.run(tcp, api::open(app.clone()), until(stopped)),
        )
    };
    tokio::pin!(servers);
    tokio::select! {
        _ = &mut servers => return Ok(()),
        signal = signals.next() => info!(signal, "stopping"),
    }
    let _ = stop.send(true);
    if tokio::time::timeout(STOP_WITHIN, servers).await.is_err() {
        warn!("stopped with requests unanswered after {} s", STOP_WITHIN.as_secs());
    }
    Ok(())
}

/// Listens on a TCP port. Waits if a process that exits still holds the port.
async fn listen(address: SocketAddr, deadline: Deadline) -> anyhow::Result<TcpListener> {
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if deadline.is_over() {
                    let holder = holder::of_port(address)
                        .map_or_else(String::new, |pid| format!(" ({})", predecessor::describe(Some(pid))));
                    bail!(
                        "another process listens on {address}{holder}: stop it first, or set another `listen` in \
                         [control]"
                    );
                }
                tokio::time::sleep(predecessor::RETRY).await;
            }
            listener => {
                return listener
                    .with_context(|| format!("cannot listen on {address}; set another `listen` in [control]"));
            }
        }
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender was dropped, which also ends the servers.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// The signals that end the process. They are caught as long as this value exists.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let catch = |kind| signal(kind).context("cannot catch signals");
        Ok(Signals { interrupt: catch(SignalKind::interrupt())?, terminate: catch(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
