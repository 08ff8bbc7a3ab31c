//! Directories with pipelines, and processes that run them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

const PIPELINE: &str = r#"version: 1
pipeline: it
log: {embedded: {dir: log, segment: 4MiB}}
server: {listen: 127.0.0.1:0}
defaults: {topic: {partitions: 2, key: [k]}}
topics:
  events: {columns: {id: bigint!, k: string!, amount: int!}}
sources:
  input: {file: {path: input.ndjson, follow: FOLLOW}, to: events}
services:
  check: {from: events, check: {positive: amount > 0}, to: good}
  twice: {from: good, sql: "SELECT id, k, amount * 2 AS twice FROM good", to: doubled}
sinks:
  out: {from: [doubled], file: {path: out}}
tests:
  - name: twice one is two
    given: {events: [{id: 1, k: a, amount: 1}]}
    expect: {doubled: [{id: 1, twice: 2}]}
  - name: nothing is refused
    given: {events: [{id: 2, k: a, amount: 0}]}
    expect: {check.dlq: [{rules: [positive]}], good: []}
"#;

/// A directory with a pipeline. Event `i` has the amount `i % 10`, so one in ten is refused.
pub(crate) struct Dir {
    pub(crate) dir: TempDir,
}

impl Dir {
    /// A pipeline over a file with so many events.
    pub(crate) fn new(events: u64, follow: bool) -> Self {
        let this = Self::empty();
        this.write("pipeline.yaml", &PIPELINE.replace("FOLLOW", &follow.to_string()));
        let lines = (0..events).map(|i| format!("{{\"id\":{i},\"k\":\"k{}\",\"amount\":{}}}\n", i % 7, i % 10));
        this.write("input.ndjson", &lines.collect::<String>());
        this
    }

    pub(crate) fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap()
    }

    /// Changes the pipeline's text.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let text = self.read("pipeline.yaml");
        assert!(text.contains(from), "{from}");
        self.write("pipeline.yaml", &text.replace(from, to));
    }

    /// A command in this directory.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
        command.args(args).current_dir(self.path()).stdin(Stdio::null()).env("NO_COLOR", "1");
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran(self.command(args).output().unwrap())
    }

    /// Starts the pipeline and waits until it listens.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let mut args = args.to_vec();
        args.insert(0, "run");
        self.start_command(self.command(&args))
    }

    /// Starts a command that runs the pipeline and waits until it listens.
    pub(crate) fn start_command(&self, mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (send, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let mut running = Running { child, said, heard: Vec::new() };
        running.hear("http://");
        running
    }

    /// The rows in the files of the sink, all of them.
    pub(crate) fn out(&self) -> Vec<Value> {
        let mut rows = Vec::new();
        collect(&self.path().join("out"), &mut rows);
        rows
    }
}

fn collect(dir: &Path, rows: &mut Vec<Value>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            collect(&entry.path(), rows);
        } else {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            rows.extend(text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()));
        }
    }
}

/// A command that has ended.
pub(crate) struct Ran(Output);

impl Ran {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    /// Asserts how it ended; gives itself back.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.0.status.code(), Some(code), "stdout: {}\nstderr: {}", self.stdout(), self.stderr());
        self
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout()).unwrap_or_else(|e| panic!("{e}: {}", self.stdout()))
    }

    /// Standard output as one JSON value per line.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.stdout().lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
    }

    /// Asserts that standard error says this.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr().contains(text), "not `{text}` in: {}", self.stderr());
        self
    }
}

/// A pipeline that runs. Killed when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    said: mpsc::Receiver<String>,
    heard: Vec<String>,
}

impl Running {
    /// Waits until it says this.
    #[track_caller]
    pub(crate) fn hear(&mut self, text: &str) -> String {
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(line) = self.heard.iter().find(|l| l.contains(text)) {
                return line.clone();
            }
            match self.said.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.heard.push(line),
                Err(_) => panic!("it never said `{text}`, but: {:#?}", self.heard),
            }
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Waits for the end; gives the exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let mut code = None;
        wait("the process to end", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.and_then(|c| c.code())
    }

    /// Stops it in order.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.signal("-TERM");
        assert_eq!(self.ended(), Some(0), "{:#?}", self.heard);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits for a condition.
#[track_caller]
pub(crate) fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A service, source or sink in a status.
pub(crate) fn part<'a>(status: &'a Value, kind: &str, name: &str) -> &'a Value {
    status[kind].as_array().unwrap().iter().find(|s| s["name"] == name).unwrap()
}

/// Waits until a service of the running pipeline looks so.
#[track_caller]
pub(crate) fn wait_for(dir: &Dir, service: &str, what: &str, mut condition: impl FnMut(&Value) -> bool) {
    wait(what, || {
        let status = dir.run(&["services", "--json"]).exits(0).json();
        condition(part(&status, "services", service))
    });
}
