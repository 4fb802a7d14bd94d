//! The control process: settings, two listeners, one watch over the dataplane, a clean stop.
//!
//! At start the unix socket is taken first: a second control process ends there, before it has done anything. On
//! SIGINT and SIGTERM no new request is taken, those at work get a few seconds, and the socket's file is removed.
//! The dataplane notices nothing of either.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{CommandFactory, Parser};
use knockplane_limits::descriptors;
use knockplane_log::{AT_EXIT, Format};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::api::{self, App};
use crate::dataplane::{self, Dataplane};
use crate::holder::{self, Deadline};
use crate::metrics::{METRICS_LISTENER, Metrics, OPERATORS_LISTENER};
use crate::names::{self, Resolver};
use crate::server::{Server, Sizes, Times};
use crate::settings::{DEFAULT_FILE, Settings};
use crate::{Exit, socket};

/// How long requests at work may take after a signal. An apply that takes longer goes on in the dataplane.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// How long a process that does not start waits until its reasons are read.
const NOT_STARTED: Duration = Duration::from_secs(2);

/// Connections that the kernel holds until they are accepted; it takes `net.core.somaxconn` if that is less.
const BACKLOG: i32 = 4096;

/// The control process of knockplane: API, metrics and health for people and machines.
#[derive(Debug, Parser)]
#[command(name = "knockplane-control", version)]
struct Args {
    /// Configuration file; its section [control] is read
    #[arg(long, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    /// How log lines look, on standard error; RUST_LOG chooses which
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: Format,
}

/// The command line, for its manual.
pub fn command() -> clap::Command {
    Args::command()
}

/// The whole process, from command line to exit code.
pub fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = knockplane_log::start(args.log_format) {
        knockplane_log::write(&format!("knockplane-control: cannot start the log: {error}\n"));
        return Exit::Runtime.into();
    }
    // One task panics, and the others go on.
    knockplane_log::log_panics();
    let exit = start(&args);
    // It fails before it serves, or not at all.
    let patience = if exit == Exit::Ok { AT_EXIT } else { NOT_STARTED };
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

/// Serves until a signal comes.
///
/// # Errors
/// If an address cannot be listened on, or signals cannot be caught; before it serves.
pub async fn run(settings: &Settings) -> anyhow::Result<()> {
    let descriptors = descriptors::raise();
    let sizes = Sizes::within(descriptors);
    if sizes.are_reduced() {
        warn!(
            descriptors,
            metrics = sizes.metrics.total,
            operators = sizes.operators.total,
            "few files may be open, and few connections for it: raise the limit (LimitNOFILE=, ulimit -n) to 1024"
        );
    }
    let deadline = Deadline::start();
    let (unix, _removal) = socket::bind(&settings.socket, settings.socket_group, deadline).await?;
    let tcp = listen(settings.listen, deadline).await?;
    // The library asks for 128, which a burst of connections fills before the process gets to run.
    rustix::net::listen(&tcp, BACKLOG).context("cannot lengthen the queue of connections")?;
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

/// Listens on a TCP port. Waits for a process that is exiting.
async fn listen(address: SocketAddr, deadline: Deadline) -> anyhow::Result<TcpListener> {
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if !deadline.wait().await {
                    let holder = holder::describe(holder::of_port(address));
                    bail!(
                        "another process listens on {address}{holder}: stop it first, or set another `listen` in \
                         [control]"
                    );
                }
            }
            listener => {
                return listener
                    .with_context(|| format!("cannot listen on {address}; set another `listen` in [control]"));
            }
        }
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the end as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// The signals that end the process, caught from the moment this exists.
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
