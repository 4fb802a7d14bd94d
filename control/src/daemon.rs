//! The control process: settings, listeners, a watch of the dataplane, a clean stop.
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

use crate::api::{self, App, WebPage};
use crate::audit::{self, AuditState};
use crate::dataplane::{self, Dataplane};
use crate::events::follow;
use crate::holder;
use crate::metrics::{API_LISTENER, METRICS_LISTENER, Metrics, OPERATORS_LISTENER, READERS_LISTENER};
use crate::names::{self, Resolver};
use crate::server::tls::Certificates;
use crate::server::{Server, Sizes, Times};
use crate::sessions::Sessions;
use crate::settings::api::ApiSettings;
use crate::settings::{ControlSettings, DEFAULT_FILE};
use crate::socket;
use crate::tokens::Tokens;
use crate::traffic::TrafficHistory;

/// Time limit for running requests after a signal. The dataplane completes an apply that takes longer.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Time limit for the last lines of the audit file.
const AUDIT_WITHIN: Duration = Duration::from_secs(2);

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
    let settings = match ControlSettings::load(&args.config) {
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
            if error.is::<InvalidFile>() { Exit::Invalid } else { Exit::Runtime }
        }
    }
}

/// Serves requests until a signal arrives.
///
/// # Errors
/// If the process cannot listen on an address or catch signals. Then it has served nothing.
pub async fn run(settings: &ControlSettings) -> anyhow::Result<()> {
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
    let (unix, _removal) = socket::bind("socket", &settings.socket, settings.socket_group, deadline).await?;
    let tcp = listen("[control]", settings.listen, deadline).await?;
    let reading = match &settings.read_socket {
        Some(path) => Some(socket::bind("read-socket", path, settings.read_socket_group, deadline).await?),
        None => None,
    };
    let dataplane = Dataplane::new(&settings.dataplane_socket);
    let mut signals = Signals::new()?;
    let metrics = Metrics::default();
    let resolver = Resolver::new(settings.name_servers.clone(), metrics.resolver.clone());
    let audit = settings.audit.as_ref().map_or_else(AuditState::default, |_| AuditState::on());
    let mut app = App::new(dataplane.clone(), resolver.clone(), metrics).with_audit(audit);
    let api = match &settings.api {
        Some(api) => Some((ApiListener::start(api, &mut app, deadline).await?, api)),
        None => None,
    };
    let app = Arc::new(app);
    info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %settings.listen,
        socket = %settings.socket.display(),
        dataplane = %settings.dataplane_socket.display(),
        "control process started"
    );
    if let Some((_, ApiSettings { listen, tls, tokens, page })) = &api {
        let with_client_certificates = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        info!(%listen, tls = tls.is_some(), with_client_certificates, tokens = %tokens.display(), page, "API started");
    }
    if let Some(path) = &settings.read_socket {
        info!(socket = %path.display(), "read-only socket started");
    }

    tokio::spawn(names::watch(dataplane.clone(), resolver));
    tokio::spawn(dataplane::watch(dataplane));
    tokio::spawn(follow::follow(app.events.clone()));
    let audit =
        settings.audit.clone().map(|audit| tokio::spawn(audit::run(audit, app.events.clone(), app.audit.clone())));
    let (stop, stopped) = watch::channel(false);
    let server = |name, limits, times| Server { name, limits, times, refusals: app.metrics.refusals(name), tls: None };
    let operators = server(OPERATORS_LISTENER, sizes.operators, Times::OPERATORS);
    let metrics = server(METRICS_LISTENER, sizes.metrics, Times::METRICS);
    let over_tcp = async {
        let Some((ApiListener { listener, tokens }, _)) = api else { return };
        let mut server = server(API_LISTENER, sizes.api, Times::OPERATORS);
        server.tls = app.certificates.clone();
        server.run(listener, api::with_tokens(app.clone(), tokens), until(stopped.clone())).await;
    };
    let readers = async {
        let Some((listener, _removal)) = reading else { return };
        let server = server(READERS_LISTENER, sizes.readers, Times::OPERATORS);
        server.run(listener, api::read_only(app.clone()), until(stopped.clone())).await;
    };
    let servers = async {
        tokio::join!(
            operators.run(unix, api::whole(app.clone()), until(stopped.clone())),
            metrics.run(tcp, api::open(app.clone()), until(stopped.clone())),
            over_tcp,
            readers,
        )
    };
    tokio::pin!(servers);
    tokio::select! {
        _ = &mut servers => return Ok(()),
        signal = signals.next() => info!(signal, "stopping"),
    }
    let _ = stop.send(true);
    app.events.end_streams();
    if tokio::time::timeout(STOP_WITHIN, servers).await.is_err() {
        warn!("stopped with requests unanswered after {} s", STOP_WITHIN.as_secs());
    }
    // After the last requests, so that the audit file gets their changes.
    app.events.close();
    if let Some(audit) = audit {
        // A disk that hangs does not delay the end.
        let _ = tokio::time::timeout(AUDIT_WITHIN, audit).await;
    }
    Ok(())
}

/// A file that the settings name is invalid: a restart does not help.
#[derive(Debug, thiserror::Error)]
#[error("[control.api]: {0}")]
struct InvalidFile(String);

/// The API on TCP before it serves.
struct ApiListener {
    listener: TcpListener,
    tokens: Arc<Tokens>,
}

impl ApiListener {
    /// Reads tokens and certificate, and listens.
    async fn start(settings: &ApiSettings, app: &mut App, deadline: Deadline) -> anyhow::Result<Self> {
        let ApiSettings { listen: address, tls, tokens: file, page } = settings;
        let tokens = Arc::new(Tokens::load(file).map_err(|error| InvalidFile(error.to_string()))?);
        tokio::spawn(Arc::clone(&tokens).watch());
        if let Some(files) = tls {
            let certificates = Certificates::load(files.clone(), app.metrics.tls_failures());
            let certificates = Arc::new(certificates.map_err(InvalidFile)?);
            tokio::spawn(Arc::clone(&certificates).watch());
            app.certificates = Some(certificates);
        }
        app.tokens = Some(Arc::clone(&tokens));
        if *page {
            let sessions = Arc::new(Sessions::load(&file.with_extension("sessions.json"), Arc::clone(&tokens)));
            tokio::spawn(Arc::clone(&sessions).watch());
            app.web_page = Some(WebPage { sessions, address: settings.page_address() });
            let (traffic, dataplane) = (Arc::new(TrafficHistory::default()), app.dataplane.clone());
            app.traffic = Some(Arc::clone(&traffic));
            tokio::spawn(async move { traffic.follow(dataplane).await });
        }
        Ok(ApiListener { listener: listen("[control.api]", *address, deadline).await?, tokens })
    }
}

/// Listens on a TCP port. Waits if a process that exits still holds the port. `section` is that of the setting.
async fn listen(section: &str, address: SocketAddr, deadline: Deadline) -> anyhow::Result<TcpListener> {
    let listener = bind(section, address, deadline).await?;
    // The library sets a backlog of 128, which a burst of connections fills before the process is scheduled.
    rustix::net::listen(&listener, BACKLOG).context("cannot set the backlog of the listener")?;
    Ok(listener)
}

async fn bind(section: &str, address: SocketAddr, deadline: Deadline) -> anyhow::Result<TcpListener> {
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if deadline.is_over() {
                    let holder = holder::of_port(address)
                        .map_or_else(String::new, |pid| format!(" ({})", predecessor::describe(Some(pid))));
                    bail!(
                        "another process listens on {address}{holder}: stop it first, or set another `listen` in \
                         {section}"
                    );
                }
                tokio::time::sleep(predecessor::RETRY).await;
            }
            listener => {
                return listener
                    .with_context(|| format!("cannot listen on {address}; set another `listen` in {section}"));
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
