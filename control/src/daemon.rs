//! The control process: settings, two listeners, one watch over the dataplane, a clean stop.
//!
//! At start the unix socket is taken first: a second control process ends there, before it has done anything. On
//! SIGINT and SIGTERM no new request is taken, those at work get a few seconds, and the socket's file is removed.
//! The dataplane notices nothing of either.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use knockplane_limits::descriptors;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

use crate::api::{self, App};
use crate::dataplane::{self, Dataplane};
use crate::metrics::{METRICS_LISTENER, Metrics, OPERATORS_LISTENER};
use crate::server::{Server, Sizes, Times};
use crate::settings::{DEFAULT_FILE, Settings};
use crate::{Exit, socket};

/// How long requests at work may take after a signal. An apply that takes longer goes on in the dataplane.
const STOP_WITHIN: Duration = Duration::from_secs(5);

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
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// The whole process, from command line to exit code.
pub fn main() -> ExitCode {
    let args = Args::parse();
    start_log(args.log_format);
    let settings = match Settings::load(&args.config) {
        Ok(settings) => settings,
        Err(invalid) => {
            for problem in invalid.problems {
                error!("{problem}");
            }
            return Exit::Invalid.into();
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.context("cannot start the event loop").and_then(|runtime| runtime.block_on(run(&settings)));
    match ended {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            error!("{error:#}");
            Exit::Runtime.into()
        }
    }
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Serves until a signal comes.
///
/// # Errors
/// If an address cannot be listened on.
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
    let (unix, _removal) = socket::bind(&settings.socket)?;
    let tcp = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("cannot listen on {}; set another `listen` in [control]", settings.listen))?;
    // The library asks for 128, which a burst of connections fills before the process gets to run.
    rustix::net::listen(&tcp, BACKLOG).context("cannot lengthen the queue of connections")?;
    let dataplane = Dataplane::new(&settings.dataplane_socket);
    let app = Arc::new(App::new(dataplane.clone(), Metrics::default()));
    info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %settings.listen,
        socket = %settings.socket.display(),
        dataplane = %settings.dataplane_socket.display(),
        "control process started"
    );

    let mut signals = Signals::new()?;
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
