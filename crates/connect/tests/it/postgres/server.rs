//! A PostgreSQL of the tests' own: its files in a temporary directory, on a free port, gone with the last test that uses
//! it.
//!
//! The programs are looked for in `MILLSTREAM_POSTGRES`, on the search path, and where Debian puts them. Where there are
//! none the tests say so and pass; `scripts/test` sets the variable and says what was left out.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_postgres::{Client, NoTls};

/// The user `nobody`: PostgreSQL does not run as root.
const NOBODY: u32 = 65_534;
pub(crate) const PASSWORD: &str = "qu1te-secret";

/// Paths are relative to the data directory.
const TLS: &[&str] = &["-c", "ssl=on", "-c", "ssl_cert_file=../server.pem", "-c", "ssl_key_file=../server.key"];

pub(crate) struct Server {
    programs: PathBuf,
    home: tempfile::TempDir,
    port: u16,
    child: Mutex<Option<Child>>,
    tls: bool,
}

static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
static DATABASES: AtomicU32 = AtomicU32::new(0);

fn programs() -> Option<PathBuf> {
    let named = std::env::var_os("MILLSTREAM_POSTGRES").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = named.into_iter().chain(std::env::split_paths(&path)).collect();
    let mut debian: Vec<PathBuf> = glob::glob("/usr/lib/postgresql/*/bin").unwrap().filter_map(Result::ok).collect();
    debian.reverse();
    places.extend(debian);
    let found = places.into_iter().find(|place| place.join("initdb").exists() && place.join("postgres").exists());
    // A link on the search path does not lead to the server's own files.
    found.and_then(|place| place.join("initdb").canonicalize().ok()?.parent().map(Path::to_owned))
}

/// The server that tests share; `None`, and it is said, where PostgreSQL is not installed.
pub(crate) fn shared() -> Option<Arc<Server>> {
    let mut shared = SHARED.lock();
    if let Some(server) = shared.upgrade() {
        return Some(server);
    }
    let server = Arc::new(own()?);
    *shared = Arc::downgrade(&server);
    Some(server)
}

/// A server for a test that stops it.
pub(crate) fn own() -> Option<Server> {
    server(false)
}

/// A server with a certificate for `localhost`; `None`, and it is said, where nobody can make one.
pub(crate) fn with_tls() -> Option<Server> {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("LEFT OUT: the program openssl, which makes certificates, is not installed");
        return None;
    }
    server(true)
}

fn server(tls: bool) -> Option<Server> {
    let Some(programs) = programs() else {
        eprintln!("LEFT OUT: PostgreSQL is not installed; set MILLSTREAM_POSTGRES to the directory of `initdb`");
        return None;
    };
    let home = tempfile::tempdir().unwrap();
    let password = home.path().join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    if root() {
        for path in [home.path(), &password] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Server { programs, home, port, child: Mutex::default(), tls };
    let made = server
        .program("initdb")
        .args(["--no-sync", "--auth=scram-sha-256", "--username=bob", "--encoding=UTF8", "--locale=C"])
        .arg(format!("--pwfile={}", password.display()))
        .arg("-D")
        .arg(server.home.path().join("data"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    if tls {
        server.certify();
    }
    server.start();
    Some(server)
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Server {
    fn program(&self, name: &str) -> Command {
        let here = self.programs.join(name);
        let mut command = Command::new(if here.exists() { here } else { name.into() });
        command.current_dir(self.home.path()).stdin(Stdio::null());
        if root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Makes an authority (`ca.pem`), another one that signs nothing (`other.pem`), and the server's certificate.
    fn certify(&self) {
        let run = |line: &str| {
            let made = self.program("openssl").args(line.split(' ')).output().unwrap();
            assert!(made.status.success(), "{line}: {}", String::from_utf8_lossy(&made.stderr));
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        for name in ["ca", "other"] {
            run(&format!("req -x509 {key} -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}"));
        }
        std::fs::write(self.file("names"), "subjectAltName=DNS:localhost\n").unwrap();
        run(&format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"));
        run("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem");
    }

    /// A file of the server.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn start(&self) {
        let log = std::fs::File::create(self.home.path().join("server.log")).unwrap();
        let child = self
            .program("postgres")
            .arg("-D")
            .arg(self.home.path().join("data"))
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"])
            .args(["-c", "max_connections=200", "-c", "unix_socket_directories="])
            .args(if self.tls { TLS } else { &[] })
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.child.lock() = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || std::fs::read_to_string(self.home.path().join("server.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "PostgreSQL did not start in time: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops at once, in the middle of whatever is being done.
    pub(crate) fn stop(&self) {
        if let Some(mut child) = self.child.lock().take() {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::QUIT).unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn url(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// An address by name, with these options.
    pub(crate) fn url_with(&self, host: &str, database: &str, options: &str) -> String {
        format!("postgres://bob:{PASSWORD}@{host}:{}/{database}?{options}", self.port)
    }

    /// A client of a database; a server that has just begun to listen is waited for.
    pub(crate) async fn client(&self, database: &str) -> Client {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match tokio_postgres::connect(&self.url("bob", PASSWORD, database), NoTls).await {
                Ok((client, connection)) => {
                    drop(tokio::spawn(connection));
                    return client;
                }
                Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A new database; its name.
    pub(crate) async fn database(&self) -> String {
        let name = format!("db{}", DATABASES.fetch_add(1, Ordering::AcqRel));
        self.client("postgres").await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        name
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
