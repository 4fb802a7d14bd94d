//! The control process: settings, two listeners, one watch over the dataplane, a clean stop.
//!
//! At start the unix socket is taken first: a second control process ends there, before it has done anything. On
//! SIGINT and SIGTERM no new request is taken, those at work get a few seconds, and the socket's file is removed.
//! The dataplane notices nothing of either.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use knockplane_log::{AT_EXIT, Format};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::api::{self, App};
use crate::dataplane::{self, Dataplane};
use crate::metrics::Metrics;
use crate::settings::{DEFAULT_FILE, Settings};
use crate::{Exit, open, socket};

/// How long requests at work may take after a signal. An apply that takes longer goes on in the dataplane.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// How long a process that does not start waits until its reasons are read.
const NOT_STARTED: Duration = Duration::from_secs(2);

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
    let patience = if exit == Exit::Invalid { NOT_STARTED } else { AT_EXIT };
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
/// If an address cannot be listened on.
pub async fn run(settings: &Settings) -> anyhow::Result<()> {
    let (unix, _removal) = socket::bind(&settings.socket)?;
    let tcp = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("cannot listen on {}; set another `listen` in [control]", settings.listen))?;
    let dataplane = Dataplane::new(&settings.dataplane_socket);
    let app = Arc::new(App { dataplane: dataplane.clone(), metrics: Metrics::default() });
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
    let whole = axum::serve(unix, api::whole(app.clone())).with_graceful_shutdown(until(stopped.clone()));
    let open = open::serve(tcp, api::open(app), until(stopped));
    let servers = async {
        tokio::try_join!(async { whole.await }, async {
            open.await;
            Ok(())
        })
    };
    tokio::pin!(servers);
    tokio::select! {
        ended = &mut servers => return ended.map(drop).context("a listener failed"),
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
