//! The same with a server that speaks S3: `moto`, which `scripts/test` installs and names in `MILLSTREAM_MOTO`.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use millstream_backup::Place;

use crate::bed::Bed;

struct Server(Child, u16);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Server {
    /// Starts it on a free port and makes a bucket; `None`, loudly, where it is not installed.
    fn start() -> Option<Self> {
        let Some(program) = std::env::var_os("MILLSTREAM_MOTO") else {
            eprintln!("LEFT OUT: MILLSTREAM_MOTO does not name the program moto_server");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self(child, port);
        let deadline = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "moto_server does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        server.put("/backups");
        Some(server)
    }

    fn put(&self, path: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.1)).unwrap();
        let request =
            format!("PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    fn place(&self) -> Place {
        Place {
            endpoint: Some(format!("http://127.0.0.1:{}", self.1)),
            region: Some("us-east-1".into()),
            allow_http: true,
            access_key_id: Some("testing".into()),
            secret_access_key: Some("testing".into()),
            ..Place::new("s3://backups/some/prefix")
        }
    }
}

#[tokio::test]
async fn a_log_comes_back_from_a_bucket() {
    let Some(server) = Server::start() else { return };
    let bed = Bed::at(tempfile::tempdir().unwrap(), &server.place());
    let mut open = bed.open("data").await;
    let mut backup = bed.backup(&open, 2);
    let mut first = None;
    for _ in 0..4 {
        open.add(150).await;
        open.settle();
        first = first.or(Some(bed.round(&mut backup).await.unwrap()));
    }
    let again = bed.round(&mut bed.backup(&open, 2)).await.unwrap();
    assert_eq!(again.objects, 0);
    assert_eq!(bed.store.folders().await.unwrap(), ["counting"]);
    assert!(bed.restored(first.map(|done| done.time_us), "first").await.is_err(), "only two are kept");
    assert_eq!(bed.restored(None, "back").await.unwrap(), 600 * 50);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_an_error_that_names_it() {
    let Some(server) = Server::start() else { return };
    let nowhere = Place { to: "s3://nowhere".into(), ..server.place() };
    let bed = Bed::at(tempfile::tempdir().unwrap(), &nowhere);
    let mut open = bed.open("data").await;
    open.add(1).await;
    let error = bed.round(&mut bed.backup(&open, 2)).await.unwrap_err();
    assert!(error.to_string().contains("s3://nowhere"), "{error}");
}
