//! What the tests are given: engines, programs, the image, and the policy that was learnt from it once.

use lazaret_kernel::netns::NetworkNamespace;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// For what takes a second at most, on a machine under load.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// berth's port, which its image exposes. Servers in one engine run one at a time.
pub(crate) const PORT: u16 = 8080;

/// The options that every container of these tests is run with.
pub(crate) const HARDENED: [&str; 5] = [
    "--network=host",
    "--read-only",
    "--tmpfs=/tmp:mode=1777",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
];

/// What `cargo xtask test` says (`xtask/src/test/e2e.rs`).
#[derive(Debug, Deserialize)]
pub(crate) struct World {
    pub(crate) docker: Docker,
    pub(crate) runtime_config: PathBuf,
    /// What the wrapper runs.
    pub(crate) runc: PathBuf,
    pub(crate) containerd: Containerd,
    programs: BTreeMap<String, PathBuf>,
    images: BTreeMap<String, Image>,
    folder: PathBuf,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Docker {
    socket: PathBuf,
    config: PathBuf,
    pid: u32,
    pub(crate) data_root: PathBuf,
    pub(crate) cgroup: String,
    runtime: String,
}

impl Docker {
    /// Its process, whose namespaces are those of its containers' network and mounts.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Containerd {
    pub(crate) socket: PathBuf,
    pub(crate) pid: u32,
    pub(crate) data_root: PathBuf,
    pub(crate) cgroup: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Image {
    pub(crate) reference: String,
    pub(crate) config_digest: String,
}

/// The world, read once.
pub(crate) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let path = std::env::var_os("LAZARET_E2E").expect("run by `cargo xtask test`");
        let text = std::fs::read(path).expect("the description is there");
        serde_json::from_slice(&text).expect("the description is of this form")
    })
}

/// What a program said, for assertions and their messages.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Standard output without its last newline, of a program that ended well.
    #[track_caller]
    pub(crate) fn good(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out.trim_end()
    }
}

/// Runs it to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Said {
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Ours(command.spawn().expect("it starts")).end(command)
}

/// A child that is killed when the test ends before it does.
pub(crate) struct Ours(pub(crate) Child);

impl Ours {
    /// Waits for its end and reads what it said; both its outputs are pipes.
    #[track_caller]
    pub(crate) fn end(&mut self, name: &Command) -> Said {
        let out = reading(self.0.stdout.take().expect("piped"));
        let err = reading(self.0.stderr.take().expect("piped"));
        let status = wait_for(&format!("end of {name:?}"), || {
            self.0.try_wait().expect("a child of ours")
        });
        Said {
            code: status.code(),
            out: read(out, name),
            err: read(err, name),
        }
    }
}

/// What was read, when nobody holds the pipe's other end any more: a program must not leave others behind.
#[track_caller]
fn read(reading: JoinHandle<String>, name: &Command) -> String {
    wait_for(&format!("end of what {name:?} says"), || {
        reading.is_finished().then_some(())
    });
    reading.join().expect("read")
}

/// Reads on another thread, so that neither pipe is full while the other is waited for.
fn reading(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Drop for Ours {
    fn drop(&mut self) {
        // it may have ended already
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Asks until there is an answer.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "no {what} within {} s",
            PATIENCE.as_secs()
        );
        std::thread::sleep(POLL);
    }
}

impl World {
    pub(crate) fn berth(&self) -> &Image {
        &self.images["berth"]
    }

    pub(crate) fn program(&self, name: &str) -> &Path {
        &self.programs[name]
    }

    /// A folder of the test's own, short enough for sockets, private, gone at the test's end.
    pub(crate) fn folder(&self) -> tempfile::TempDir {
        tempfile::Builder::new()
            .prefix("t")
            .rand_bytes(4)
            .tempdir_in(&self.folder)
            .expect("a folder")
    }

    /// A program that talks to the private Docker engine.
    pub(crate) fn with_docker(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let host = format!("unix://{}", self.docker.socket.display());
        command
            .env("DOCKER_HOST", host)
            .env("DOCKER_CONFIG", &self.docker.config)
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_TLS_VERIFY");
        command
    }

    /// `docker` with these arguments, run to its end.
    #[track_caller]
    pub(crate) fn docker(&self, args: &[&str]) -> Said {
        run(self.with_docker("docker").args(args))
    }

    /// `lazaret` with these arguments.
    pub(crate) fn lazaret(&self, args: &[&str]) -> Command {
        let mut command = self.with_docker(self.program("lazaret"));
        command.args(args);
        command
    }

    /// The arguments of `docker run` for a container under the wrapper.
    pub(crate) fn runtime(&self) -> String {
        format!("--runtime={}", self.docker.runtime)
    }

    /// Whether the engine has any container left.
    #[track_caller]
    pub(crate) fn no_container_is_left(&self) {
        let left = self.docker(&["ps", "--all", "--format", "{{.Names}} {{.Status}}"]);
        assert_eq!(left.good(), "", "containers are left");
    }

    /// Status and body of `GET path` from berth in the Docker engine's network.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        get(self.docker.pid, path)
    }

    /// A process of the private Docker engine: its network is that of all containers.
    pub(crate) fn docker_pid(&self) -> u32 {
        self.docker.pid
    }

    /// What berth says of a call that it made: `(result, errno)`.
    #[track_caller]
    pub(crate) fn call(&self, call: &str) -> (i64, i64) {
        made(self.docker.pid, call)
    }

    /// Waits until berth answers anything.
    #[track_caller]
    pub(crate) fn wait_answering(&self) {
        wait_for("answer of berth", || self.get("/ready"));
    }
}

/// Status and body of `GET path` from berth in the network of a process.
pub(crate) fn get(pid: u32, path: &str) -> Option<(u16, String)> {
    let namespace = NetworkNamespace::of(pid).expect("the engine runs");
    let answer = namespace.run(|| ask(path)).expect("entered");
    let (head, body) = answer.ok()?.split_once("\r\n\r\n").map(own)?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body))
}

fn own((head, body): (&str, &str)) -> (String, String) {
    (head.to_owned(), body.to_owned())
}

fn ask(path: &str) -> std::io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: berth\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(1 << 16).read_to_string(&mut answer)?;
    Ok(answer)
}

/// What berth in the network of a process says of a call that it made: `(result, errno)`.
#[track_caller]
pub(crate) fn made(pid: u32, call: &str) -> (i64, i64) {
    let (status, body) = get(pid, &format!("/call/{call}")).expect("berth answers");
    assert_eq!(status, 200, "{call}: {body}");
    let said: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let number = |name: &str| said[name].as_i64().expect("a number");
    (number("result"), number("errno"))
}
