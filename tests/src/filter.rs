//! The two processes, as installed: the binaries beside the running one, with a configuration of their own.

use std::env;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::process::{Output, Process, run};
use crate::topology::Topology;

/// The address of `/metrics`, in each topology's own filter namespace.
const METRICS_PORT: u16 = 9479;

/// Time in which processes must be ready. A debug build compiles 10,000 rules for more than 10 s on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Options of a filter.
#[derive(Clone, Debug)]
pub struct FilterOptions {
    /// The rules, as text.
    pub rules: String,
    /// Capacity of the lists, in entries.
    pub list_capacity: usize,
    /// Further lines of `[dataplane]`.
    pub dataplane: String,
    /// Further sections.
    pub sections: String,
}

impl FilterOptions {
    /// A rule file of `configs/`.
    ///
    /// # Errors
    /// If there is no file with this name.
    pub fn from_configs(file: &str) -> anyhow::Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(file);
        let rules = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self::from_rules(&rules))
    }

    /// Rules as text.
    pub fn from_rules(rules: &str) -> Self {
        FilterOptions {
            rules: rules.to_owned(),
            list_capacity: 10_000,
            dataplane: String::new(),
            sections: String::new(),
        }
    }
}

/// The file with the wall clock of a filter's processes, if a test sets it.
const WALL_CLOCK: &str = "wall-clock";

/// Dataplane and control process in a topology's filter namespace; they end when it is dropped.
#[derive(Debug)]
pub struct Filter<'t> {
    /// The control process. The processes are declared before `folder`, so that they end before the removal of the
    /// folder.
    pub control: Process,
    /// The dataplane.
    pub dataplane: Process,
    folder: Folder,
    topology: &'t Topology,
}

impl<'t> Filter<'t> {
    /// Starts both processes and waits until they are ready.
    ///
    /// # Errors
    /// If they do not become ready, with their output.
    pub fn start(topology: &'t Topology, options: &FilterOptions) -> anyhow::Result<Self> {
        let folder = Folder::make(topology.filter.name())?;
        write(&folder.0.join("rules.rsc"), &options.rules)?;
        write(&folder.0.join("knockplane.toml"), &configuration(&folder.0, options))?;
        let dataplane = start(topology, &folder.0, "knockplane-dataplane")?;
        let control = start(topology, &folder.0, "knockplane-control")?;
        let mut filter = Filter { control, dataplane, folder, topology };
        filter.wait_until_ready()?;
        Ok(filter)
    }

    /// Sets the wall clock of both processes to so many hours from now: while they run, within a second, and in processes that
    /// start from now on. Processes that started before the first call keep their clock. This is libfaketime
    /// (<https://github.com/wolfcw/libfaketime>), which replaces the C library's clock.
    ///
    /// # Errors
    /// If the file that libfaketime reads cannot be written.
    pub fn set_wall_clock(&self, hours: i32) -> anyhow::Result<()> {
        // A reader sees the old or the new content.
        let (file, next) = (self.path(WALL_CLOCK), self.path("next-wall-clock"));
        fs::write(&next, format!("{hours:+}h\n"))?;
        Ok(fs::rename(next, file)?)
    }

    /// Starts the dataplane again after it ended.
    ///
    /// # Errors
    /// If it cannot be started or does not become ready.
    pub fn restart_dataplane(&mut self) -> anyhow::Result<()> {
        self.dataplane = start(self.topology, &self.folder.0, "knockplane-dataplane")?;
        self.wait_until_ready()
    }

    /// Starts the dataplane again after it ended, and does not wait for it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_dataplane(&mut self) -> anyhow::Result<()> {
        self.dataplane = start(self.topology, &self.folder.0, "knockplane-dataplane")?;
        Ok(())
    }

    /// As [`Filter::restart_dataplane`], with further arguments.
    ///
    /// # Errors
    /// As [`Filter::restart_dataplane`].
    pub fn restart_dataplane_with(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        self.dataplane = start_with(self.topology, &self.folder.0, "knockplane-dataplane", arguments)?;
        self.wait_until_ready()
    }

    /// Starts the control process again after it ended.
    ///
    /// # Errors
    /// If it cannot be started or does not become ready.
    pub fn restart_control(&mut self) -> anyhow::Result<()> {
        self.control = start(self.topology, &self.folder.0, "knockplane-control")?;
        self.wait_until_ready()
    }

    /// Starts both processes again after they ended.
    ///
    /// # Errors
    /// If they cannot be started or do not become ready.
    pub fn restart_both(&mut self) -> anyhow::Result<()> {
        self.dataplane = start(self.topology, &self.folder.0, "knockplane-dataplane")?;
        self.restart_control()
    }

    /// Starts both processes again through a shell script that ends with `exec "$@"`, with these standard errors:
    /// dataplane, control. Waits until they are ready.
    ///
    /// # Errors
    /// If they cannot be started or do not become ready.
    pub fn restart_by(&mut self, script: &str, stderr: [Stdio; 2]) -> anyhow::Result<()> {
        self.control.kill()?;
        self.dataplane.kill()?;
        let [dataplane, control] = stderr;
        let start = |program: &str, stderr: Stdio| {
            let mut command = self.topology.filter.command("sh");
            command.args(["-c", script, "sh"]).arg(binary(program)?);
            command.arg("--config").arg(self.folder.0.join("knockplane.toml")).stdout(Stdio::null());
            Process::start_with(program, &mut command, stderr)
        };
        let started = (start("knockplane-dataplane", dataplane)?, start("knockplane-control", control)?);
        (self.dataplane, self.control) = started;
        self.wait_until_ready()
    }

    /// The command line that runs `knockctl`, for a shell. The arguments must not need quotes.
    ///
    /// # Errors
    /// If the program does not exist.
    pub fn knockctl_line(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let (program, socket) = (binary("knockctl")?, self.folder.0.join("control.sock"));
        Ok(format!("{} --socket {} {}", program.display(), socket.display(), arguments.join(" ")))
    }

    /// A command that runs `knockctl`.
    ///
    /// # Errors
    /// If the program does not exist.
    pub fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(binary("knockctl")?);
        command.arg("--socket").arg(self.folder.0.join("control.sock")).args(arguments);
        Ok(command)
    }

    /// Runs `knockctl`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn knockctl(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        run(&mut self.command(arguments)?)
    }

    /// The packets that the last rule of `/ip firewall filter` has matched.
    ///
    /// # Errors
    /// If `knockctl` fails, or if there is no such rule.
    pub fn matched_by_last_rule(&self) -> anyhow::Result<u64> {
        let rules = self.ask(&["show", "rules"])?;
        let rules = rules["rules"].as_array().context("rules")?;
        let last = rules.iter().rfind(|rule| rule["menu"] == "/ip firewall filter");
        last.and_then(|rule| rule["counter"]["packets"].as_u64()).context("a rule with a counter")
    }

    /// Runs `knockctl --json`, which must succeed.
    ///
    /// # Errors
    /// If it fails, or prints no JSON.
    pub fn ask(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let output = self.knockctl(&[&["--json"], arguments].concat())?;
        ensure!(output.ok(), "knockctl {arguments:?}: {}", output.stderr);
        serde_json::from_str(&output.stdout).with_context(|| format!("not JSON: {}", output.stdout))
    }

    /// Fetches a page of the control process's HTTP listener.
    ///
    /// # Errors
    /// If there is no answer, or its status is not 200.
    pub fn http(&self, path: &str) -> anyhow::Result<String> {
        let answer = self.topology.filter.within(|| {
            let mut stream = TcpStream::connect(("127.0.0.1", METRICS_PORT))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?;
        let (head, body) = answer.split_once("\r\n\r\n").context("not an HTTP answer")?;
        ensure!(head.contains(" 200 "), "{path}: {head}: {body}");
        Ok(body.to_owned())
    }

    /// One value of `/metrics`: the sum of all series with this name whose labels include all of `labels`.
    ///
    /// # Errors
    /// If there is no such series.
    pub fn metric(&self, name: &str, labels: &[&str]) -> anyhow::Result<f64> {
        let text = self.http("/metrics")?;
        let mut values = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
        let first = values.next().with_context(|| format!("no series {name} with {labels:?} in:\n{text}"))?;
        Ok(std::iter::once(first).chain(values).filter_map(value).sum())
    }

    /// A file in the filter's own folder.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.0.join(file)
    }

    /// The log of both processes so far.
    pub fn log(&self) -> String {
        log(&self.folder.0)
    }

    /// Waits until `/readyz` succeeds.
    ///
    /// # Errors
    /// If a process ends, or it takes too long, with their logs.
    pub fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let patience = Instant::now() + PATIENCE;
        loop {
            let problem = match self.http("/readyz") {
                Ok(_) => return Ok(()),
                Err(problem) => problem,
            };
            let running = self.dataplane.runs()? && self.control.runs()?;
            if !running || Instant::now() > patience {
                bail!("the filter is not ready: {problem:#}\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A temporary folder, removed when dropped.
#[derive(Debug)]
pub struct Folder(pub PathBuf);

impl Folder {
    /// Creates a folder with this name, unless it exists.
    ///
    /// # Errors
    /// If the folder cannot be created.
    pub fn make(name: &str) -> anyhow::Result<Self> {
        let folder = env::temp_dir().join(name);
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        Ok(Folder(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The path of one of the programs, built in the same profile as the running one.
///
/// # Errors
/// If it was not built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let own = env::current_exe()?;
    // target/PROFILE/demo, or target/PROFILE/deps/test-1234.
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built beside {}; run: cargo build --workspace", own.display()))
}

/// Writes a file that only its owner can change, with any umask, because the processes refuse other files.
fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text)?;
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o644))?)
}

fn start(topology: &Topology, folder: &Path, program: &str) -> anyhow::Result<Process> {
    start_with(topology, folder, program, &[])
}

fn start_with(topology: &Topology, folder: &Path, program: &str, arguments: &[&str]) -> anyhow::Result<Process> {
    let mut command = topology.filter.command(binary(program)?);
    command.arg("--config").arg(folder.join("knockplane.toml")).args(arguments);
    let clock = folder.join(WALL_CLOCK);
    if clock.exists() {
        let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
        ensure!(Path::new(&library).exists(), "{library} is missing; run: apt-get install faketime");
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", clock);
        command.envs([("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("FAKETIME_CACHE_DURATION", "1"), ("NO_FAKE_STAT", "1")]);
    }
    Process::start(program, &mut command, &folder.join(format!("{program}.log")))
}

fn configuration(folder: &Path, options: &FilterOptions) -> String {
    let folder = folder.display();
    format!(
        "[dataplane]\noutside = \"outside\"\ninside = \"inside\"\nrules = \"rules.rsc\"\n\
         socket = \"{folder}/dataplane.sock\"\nstate-dir = \"{folder}/state\"\nlist-capacity = {}\n{}\n\
         [control]\nlisten = \"127.0.0.1:{METRICS_PORT}\"\nsocket = \"{folder}/control.sock\"\n{}\n",
        options.list_capacity, options.dataplane, options.sections
    )
}

fn log(folder: &Path) -> String {
    let read = |program: &str| {
        let text = fs::read_to_string(folder.join(format!("{program}.log"))).unwrap_or_default();
        format!("--- {program} ---\n{text}")
    };
    read("knockplane-dataplane") + &read("knockplane-control")
}
