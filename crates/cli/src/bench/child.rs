//! The process that is measured: this program, running a pipeline.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use millstream_node::api::{DrainSummary, paths};
use rustix::process::{Pid, Signal, kill_process};

use super::copy::Copy;
use super::usage::{Usage, Watch, children_cpu_s};
use crate::client::Client;
use crate::failure::Failure;
use crate::target::Note;

/// How long a pipeline may take until it answers, its state read back.
const START_TIMEOUT: Duration = Duration::from_secs(300);
/// How often to look whether it does.
const LOOK: Duration = Duration::from_millis(20);
/// How many of its last lines are shown when it fails.
const LINES_SHOWN: usize = 12;

/// A run that ended by itself.
pub(super) struct Drained {
    pub(super) summary: DrainSummary,
    pub(super) wall_s: f64,
    pub(super) usage: Usage,
}

/// Runs a pipeline until all is processed.
pub(super) async fn drain(copy: &Copy) -> Result<Drained, Failure> {
    let summary = copy.dir.join("summary.json");
    let started = Started::new(copy, &["--drain", "--json"], &summary)?;
    let (status, wall_s, usage) = started.end().await?;
    if !status.success() {
        return Err(failed(copy, &format!("the pipeline ended with {status}")));
    }
    let text = std::fs::read(&summary).context("reading the summary of the run")?;
    Ok(Drained { summary: serde_json::from_slice(&text)?, wall_s, usage })
}

/// A pipeline that runs until it is stopped.
pub(super) struct Serving {
    started: Started,
    pub(super) client: Client,
}

impl Serving {
    /// Starts a pipeline and waits until it is ready.
    pub(super) async fn start(copy: &Copy) -> Result<Self, Failure> {
        let mut started = Started::new(copy, &["--plain"], &copy.dir.join("stdout"))?;
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(note) = Note::read(&copy.log).filter(|note| note.pid == started.child.id()) {
                let client = Client::new(&note.address)?;
                if client.answers(paths::READYZ).await.is_ok_and(|ok| ok) {
                    return Ok(Self { started, client });
                }
            }
            if let Some(status) = started.child.try_wait()? {
                return Err(failed(copy, &format!("the pipeline ended with {status}")));
            }
            tokio::time::sleep(LOOK).await;
        }
        started.child.kill()?;
        Err(failed(copy, "the pipeline was not ready within five minutes"))
    }

    /// How long ago its process began.
    pub(super) fn since_start(&self) -> Duration {
        self.started.began.elapsed()
    }

    /// Stops it at once, as a power cut of this process alone: what it used until then.
    pub(super) async fn kill(mut self) -> Result<(f64, Usage), Failure> {
        self.started.child.kill()?;
        let (_, wall_s, usage) = self.started.end().await?;
        Ok((wall_s, usage))
    }

    /// Stops it in order.
    pub(super) async fn stop(self) -> Result<(f64, Usage), Failure> {
        let pid = i32::try_from(self.started.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| anyhow!("the child has no process id"))?;
        kill_process(pid, Signal::TERM).map_err(std::io::Error::from)?;
        let (_, wall_s, usage) = self.started.end().await?;
        Ok((wall_s, usage))
    }
}

struct Started {
    child: Child,
    watch: Watch,
    began: Instant,
    cpu_before_s: f64,
}

impl Started {
    fn new(copy: &Copy, args: &[&str], stdout: &Path) -> Result<Self, Failure> {
        let program = std::env::current_exe().context("finding this program")?;
        let cpu_before_s = children_cpu_s();
        let began = Instant::now();
        let child = Command::new(program)
            .arg("run")
            .arg(&copy.dir)
            .args(args)
            .stdin(Stdio::null())
            .stdout(File::create(stdout).context("making the file for the output")?)
            .stderr(File::create(said(copy)).context("making the file for the messages")?)
            .spawn()
            .context("starting this program again")?;
        let watch = Watch::start(child.id());
        Ok(Self { child, watch, began, cpu_before_s })
    }

    async fn end(self) -> Result<(ExitStatus, f64, Usage), Failure> {
        let Self { mut child, watch, began, cpu_before_s } = self;
        let waited = tokio::task::spawn_blocking(move || child.wait()).await.map_err(anyhow::Error::from)?;
        let wall_s = began.elapsed().as_secs_f64();
        let usage = Usage { cpu_s: children_cpu_s() - cpu_before_s, ..watch.end() };
        Ok((waited?, wall_s, usage))
    }
}

fn said(copy: &Copy) -> PathBuf {
    copy.dir.join("stderr")
}

fn failed(copy: &Copy, what: &str) -> Failure {
    let text = std::fs::read_to_string(said(copy)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(LINES_SHOWN)..).unwrap_or_default().join("\n");
    Failure::refused("bench-run", what, format!("it said last:\n{last}"))
}
